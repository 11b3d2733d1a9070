"""Maps as NIfTI: one volume for each input, with its affine and its shape.

`nifti/<name of the input>_<detector>.nii.gz`, float32; voxels that nobody looked at are
NaN. Any viewer lays it over the input.
"""

from pathlib import Path

import numpy as np

from klip_jax.data.base_nifti import opened
from klip_jax.data.base_volume import package
from klip_jax.export.finished import Maps


def write(maps: Maps, workdir: Path) -> list[Path]:
    """Write the volumes; see the module's docstring.

    Raises:
      ValueError: if the data are not NIfTI.
    """
    nibabel = package("nibabel", "NIfTI")
    written = []
    for file, indices in maps.by_file():
        places = {i: maps.images.places[i] for i in indices}  # type: ignore[index]
        if not all(place.axes for place in places.values()):
            raise ValueError(
                f"{file}: is no NIfTI volume; give --to=dicom for DICOM, --to=png for "
                "pictures"
            )
        image, shape = opened(Path(file))
        volume = np.full(shape, np.nan, np.float32)
        for i, place in places.items():
            at: list = [slice(None)] * 3
            at[place.axes[0][0]] = place.number
            volume[tuple(at)] = place.laid(maps.of(i))
        header = image.header.copy()
        header.set_data_dtype(np.float32)
        header.set_slope_inter(1, 0)
        header["cal_min"], header["cal_max"] = 0, float(np.nanmax(volume))
        header["descrip"] = f"klip_jax map of {maps.name}"[:79].encode(
            "ascii", "replace"
        )
        stem = Path(file).name.removesuffix(".gz").removesuffix(".nii")
        target = workdir / "nifti" / f"{stem}_{maps.name}.nii.gz"
        target.parent.mkdir(exist_ok=True)
        if target in written:
            raise ValueError(f"{target}: two inputs are called {stem}; rename one")
        nibabel.save(type(image)(volume, image.affine, header), target)
        written.append(target)
    return written
