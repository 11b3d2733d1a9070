"""Maps as DICOM: one parametric map for each series, which refers to its images.

`dicom/<number>_<detector>.dcm`: float32 frames at the places of the slices, patient and
study of the input. Pixels that nobody looked at are 0, the least a viewer can show.

Reference: DICOM PS3.3, A.75, parametric map; highdicom.
"""

from pathlib import Path

import numpy as np

import klip_jax
from klip_jax.data.base_volume import package
from klip_jax.export.finished import Maps


def write(maps: Maps, workdir: Path) -> list[Path]:
    """Write the parametric maps; see the module's docstring.

    Raises:
      ValueError: if the data are not DICOM, or their headers lack what a map needs.
    """
    pydicom = package("pydicom", "DICOM")
    series: dict[str, list] = {}
    for file, indices in maps.by_file():
        try:
            source = pydicom.dcmread(file)
        except pydicom.errors.InvalidDicomError:
            raise ValueError(
                f"{file}: is no DICOM file; give --to=nifti for NIfTI, --to=png for "
                "pictures"
            ) from None
        series.setdefault(source.SeriesInstanceUID, []).append((source, indices))
    folder, written = workdir / "dicom", []
    folder.mkdir(exist_ok=True)
    for number, own in enumerate(series.values()):
        target = folder / f"{number:03d}_{maps.name}.dcm"
        _map(own, maps, number).save_as(target)
        written.append(target)
    return written


def _map(own, maps: Maps, number: int):
    """Return the parametric map of [(header, indices of its frames)] of a series."""
    highdicom = package("highdicom", "a DICOM map")
    codes = package("pydicom.sr.codedict", "a DICOM map").codes
    first = own[0][0]
    frames = [i for _, indices in own for i in indices]
    if len(own) == 1 and len(frames) != int(first.get("NumberOfFrames", 1) or 1):
        raise ValueError(
            f"{first.filename}: {len(frames)} of its frames were looked at; a map of a "
            "film is of all"
        )
    pixels = np.stack([np.nan_to_num(maps.of(i)) for i in frames])
    top = float(pixels.max()) or 1.0
    meaning = highdicom.pm.RealWorldValueMapping(
        lut_label="KLIP",
        lut_explanation=f"map of {maps.name}, bigger is odder",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, top),
        slope=1.0,
        intercept=0.0,
    )
    try:
        return highdicom.pm.ParametricMap(
            source_images=[source for source, _ in own],
            pixel_array=pixels,
            series_instance_uid=highdicom.UID(),
            series_number=9000 + number,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="klip_jax",
            manufacturer_model_name=maps.name,
            software_versions=klip_jax.__version__,
            device_serial_number="0",
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[meaning],
            voi_lut_transformations=[
                highdicom.VOILUTTransformation(window_center=top / 2, window_width=top)
            ],
            content_label="KLIP",
            content_description="research only, not a medical device",
            series_description=f"klip_jax {maps.name}",
        )
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{first.filename}: its header lacks what a map of it needs ({error})"
        ) from None
