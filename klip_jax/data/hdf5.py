"""Images in HDF5 files, slice by slice; those of fastMRI by name or from full k-space.

    data=dict(name="hdf5.load", file="multicoil_val", percentile=99.9)

An array [slices, H, W] of a file, or of each file of a folder, each a patient. Without
a name it is fastMRI's `reconstruction_rss` or `reconstruction_esc`, and where a file
has only `kspace`, fully sampled, the root of the sum of squares over coils

    x = sqrt(sum_c |F^-1 kspace_c|^2)

with k = 0 in the middle. The field of view of an ISMRMRD header gives the spacing, if
the package ismrmrd is there. One slice is read at a time.

Reference: Zbontar et al. 2018 (fastMRI).
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np
from jaxtyping import Float

from klip_jax.data import base_hdf5
from klip_jax.data.base import ImageSet, count_of, data_root
from klip_jax.data.base_geometry import Place
from klip_jax.data.base_volume import (
    LARGEST,
    REGIONS_INSIDE,
    Range,
    files_of,
    images_of,
    package,
)

_ENDINGS = (".h5", ".hdf5", ".H5", ".HDF5")
_NAMED = ("reconstruction_rss", "reconstruction_esc", "kspace")
_HEADER = "ismrmrd_header"


def load(
    *,
    file: str,
    root: str = "",
    array: str = "",
    window: tuple[float, ...] = (),
    offset: float = 0.0,
    scale: float = 0.0,
    clip: bool = False,
    percentile: float = 0.0,
    inside: float | None = None,
    group: str = "",
    per_group: int = 0,
) -> ImageSet:
    """Read the slices of a file, or of all files of a folder.

    Args:
      file: below `root`, or absolute.
      root: folder; default $KLIP_DATA, else ../shared/data.
      array: name of [slices, H, W] in each file; see the module's docstring.
      window, offset, scale, clip, percentile: what becomes 0 and 1, as of `nifti.load`.
      inside: lowest value of the body in [0, 1], its holes filled; None is unknown.
      group: of all images; "" for unknown.
      per_group: first so many slices; 0 for all.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if h5py is missing, a file is broken, has no such array, or its slices
        are of another size; if k-space is not full, or nothing says what is black and
        white.
    """
    path = data_root(root) / file
    files = files_of(path, _ENDINGS, "HDF5", ".h5 or .hdf5")
    names, counts, shapes = zip(*(_look(f, array) for f in files), strict=True)
    for own, shape in zip(files, shapes, strict=True):
        if shape != shapes[0]:
            raise ValueError(
                f"{own}: slices of {shape} pixels, but {files[0].name} has {shapes[0]};"
                " give one array of one size, one folder each"
            )
    settings = Range(tuple(window), offset, scale, clip, percentile)
    middle = counts[0] // 2
    settings.check(lambda: _slices(files[0], names[0], [middle])[0], str(path))
    index = [(f, k) for f, count in enumerate(counts) for k in range(count)]
    index = index[: count_of(per_group, len(index), str(path))]

    @functools.cache
    def greys(f):
        every = range(counts[f])
        return settings.greys(lambda: _slices(files[f], names[f], every), str(files[f]))

    def reader(some):
        chosen = [index[i] for i in some]
        values = [_slices(files[f], names[f], [k])[0] for f, k in chosen]
        wheres = [f"{files[f]}, {names[f]}, slice {k}" for f, k in chosen]
        own = [greys(f) for f, _ in chosen]
        return images_of(values, own, wheres, [False] * len(chosen), inside)

    return ImageSet(
        tuple(f"{files[f].stem}_{k:04d}" for f, k in index),
        (group,) * len(index),
        (*shapes[0], 1),
        reader,
        () if inside is None else REGIONS_INSIDE,
        patients=tuple(files[f].stem for f, _ in index),
        spacing=_spacing(files),
        places=tuple(Place(str(files[f].absolute()), k) for f, k in index),
    )


def _look(path: Path, name: str):
    """Return (array, slices, (H, W)) of a file, of which no slice is read."""
    with base_hdf5.opened(path) as file:
        has = base_hdf5.names(file)
        chosen = name or next((n for n in _NAMED if n in has), "")
        if not chosen:
            raise ValueError(f"{path}: which array? name one with data.array, of {has}")
        array = base_hdf5.dataset(file, chosen)
        kspace = array.dtype.kind == "c"
        if array.ndim not in ((3, 4) if kspace else (3,)):
            raise ValueError(
                f"{path}, {chosen}: {array.dtype} {array.shape}; slices of grey are "
                "[slices, H, W]"
            )
        if not kspace and array.dtype.kind not in "uif":
            raise ValueError(f"{path}, {chosen}: {array.dtype}, no numbers")
        pixels = int(np.prod(array.shape[1:], dtype=object))
        if not array.size or pixels > LARGEST:
            raise ValueError(
                f"{path}, {chosen}: declares slices of {array.shape[1:]}, at most "
                f"{LARGEST} numbers are read"
            )
        if kspace and "mask" in has:
            raise ValueError(
                f"{path}: its k-space was measured in part, by the array 'mask', and "
                "makes no image; give it as data.measurements"
            )
        return chosen, array.shape[0], array.shape[-2:]


def _slices(path: Path, name: str, which) -> Float[np.ndarray, "n h w"]:
    with base_hdf5.opened(path) as file:
        array = base_hdf5.dataset(file, name)
        values = np.stack([array[k] for k in which])
    if values.dtype.kind != "c":
        return values.astype(np.float32)
    if not values.reshape(-1, values.shape[-1]).any(0).all():
        raise ValueError(
            f"{path}, {name}: lines of k-space are 0 and there is no array 'mask'; "
            "give it as data.measurements, with its mask"
        )
    axes = (-2, -1)
    centred = np.fft.ifft2(np.fft.ifftshift(values, axes), norm="ortho")
    images = np.abs(np.fft.fftshift(centred, axes))
    rss = images if images.ndim == 3 else np.sqrt((images**2).sum(1))
    return rss.astype(np.float32)


def _spacing(files):
    """Return millimetres a pixel of the reconstructed field of view, if all agree."""
    if importlib.util.find_spec("ismrmrd") is None:
        return None
    spacings = {_spacing_of(path) for path in files}
    return spacings.pop() if len(spacings) == 1 else None


def _spacing_of(path):
    with base_hdf5.opened(path) as file:
        if _HEADER not in base_hdf5.names(file):
            return None
        text = base_hdf5.dataset(file, _HEADER)[()]
    xsd = package("ismrmrd.xsd", "an ISMRMRD header")
    try:
        space = xsd.CreateFromDocument(text).encoding[0].reconSpace
        view, size = space.fieldOfView_mm, space.matrixSize
        return view.y / size.y, view.x / size.x
    except Exception:  # a header of others, which only adds millimetres
        return None
