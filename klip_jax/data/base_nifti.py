"""Files of NIfTI: how a volume lies, and its slices.

    place in millimetres = affine @ (i, j, k, 1),   RAS+: to the right, front, head

Headers are read alone, and what they declare is held against the size of the file; a
whole volume is read when one of its slices is asked for, and the last two stay.

Reference: NIfTI-1, "orientation and location in space"; nibabel's `io_orientation`.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from klip_jax.data.base_geometry import Place
from klip_jax.data.base_volume import package

PLANES = {
    # The directions of slices, rows and columns: "S" is an axis that runs to the head.
    "axial": ("S", "P", "L"),
    "coronal": ("A", "I", "L"),
    "sagittal": ("L", "I", "P"),
}
_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))
_THICK = 1.5  # times the other sides of a voxel: slices were taken along this axis
_RATIO = 1032  # of gzip at its best


class Volume(NamedTuple):
    """A file whose header was read.

    Attributes:
      file: its path.
      shape: of its three axes.
      axes: as of `Place`.
      spacing: millimetres down the rows and along them.
      affine: from voxels to millimetres, [4, 4].
    """

    file: Path
    shape: tuple[int, ...]
    axes: tuple[tuple[int, int], ...]
    spacing: tuple[float, float]
    affine: Float[np.ndarray, "4 4"]

    @property
    def slices(self) -> int:
        """How many slices it has."""
        return self.shape[self.axes[0][0]]

    @property
    def picture(self) -> tuple[int, int]:
        """The size of a slice."""
        return self.shape[self.axes[1][0]], self.shape[self.axes[2][0]]


def opened(path: Path):
    """Open a file, of which only the header is read.

    Raises:
      ValueError: if it is broken, or declares more than it can hold.
    """
    nibabel = package("nibabel", "a NIfTI file")
    try:
        image = nibabel.load(path)
        shape, kind = tuple(map(int, image.shape)), image.get_data_dtype()
    except FileNotFoundError:
        raise
    except Exception as error:  # its parsers raise many kinds on broken files
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: not a whole NIfTI file ({text})") from None
    if kind.kind not in "uif":
        raise ValueError(
            f"{path}: voxels of {kind}; grey is expected, one real number each"
        )
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise ValueError(
            f"{path}: {'x'.join(map(str, shape))} voxels: a volume has three axes; "
            "save one time or channel a file"
        )
    held = path.stat().st_size
    if path.name.endswith(".gz"):
        held *= _RATIO
    else:
        held -= image.dataobj.offset
    # In whole numbers of Python, which do not overflow.
    declared = shape[0] * shape[1] * shape[2] * kind.itemsize
    if min(shape) < 1 or declared > held or shape[0] * shape[1] * shape[2] > 2**32:
        raise ValueError(
            f"{path}: declares {'x'.join(map(str, shape))} voxels, {declared} bytes, "
            f"more than the file can hold"
        )
    return image, shape


def volume_of(path: Path, plane: str, stored: bool) -> Volume:
    """Read a header; arguments as of `nifti.load`.

    Raises:
      ValueError: if the file is broken, or it is not clear how it lies.
    """
    nibabel = package("nibabel", "a NIfTI file")
    image, shape = opened(path)
    header = image.header
    sides = tuple(float(mm) for mm in header.get_zooms()[:3])
    codes = nibabel.aff2axcodes(image.affine)
    told = any(
        int(header[f"{k}form_code"]) > 0 for k in "qs" if f"{k}form_code" in header
    )
    if plane.isdigit() and int(plane) < 3:
        axis = int(plane)
    elif plane and plane not in PLANES:
        raise ValueError(
            f"data.plane={plane!r}: give one of {', '.join(PLANES)}, or a stored axis, "
            '"0", "1" or "2"'
        )
    elif not told:
        raise ValueError(
            f"{path}: its header does not say how it lies; give data.plane='0', '1' or "
            "'2', the stored axis that slices are along, and data.stored=True"
        )
    else:
        axis = _axis(path, codes, sides, plane)
    if not stored and not told:
        raise ValueError(
            f"{path}: its header does not say how it lies; give data.stored=True to "
            "take rows and columns as they are"
        )
    axes: tuple[tuple[int, int], ...]
    if stored:
        rows, columns = (i for i in range(3) if i != axis)
        axes = (axis, 1), (rows, 1), (columns, 1)
    else:
        name = next(
            n for n, way in PLANES.items() if codes[axis] in (way[0], _OPPOSITE[way[0]])
        )
        axes = tuple(_along(codes, way) for way in PLANES[name])
    spacing = sides[axes[1][0]], sides[axes[2][0]]
    return Volume(path, shape, axes, spacing, np.asarray(image.affine, float))


def number_of(volume: Volume, k: int) -> int:
    """Return which stored slice the k-th one is."""
    return k if volume.axes[0][1] > 0 else volume.slices - 1 - k


@functools.lru_cache(maxsize=2)
def voxels_of(path: Path) -> np.ndarray:
    """Read a whole volume, float32.

    Raises:
      ValueError: if it is broken.
    """
    image, shape = opened(path)
    try:
        return np.asarray(image.dataobj, np.float32).reshape(shape)
    except Exception as error:  # of gzip, zlib and the array's reader
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: not a whole NIfTI file ({text})") from None


def slice_of(volume: Volume, k: int) -> Float[np.ndarray, "h w"]:
    """Read the k-th slice."""
    place = Place("", number_of(volume, k), volume.axes)
    stored = np.take(voxels_of(volume.file), place.number, axis=volume.axes[0][0])
    return place.shown(stored)


def _axis(path, codes, sides, plane):
    """Return the stored axis of slices of a plane."""
    (axial, _) = _along(codes, PLANES[plane or "axial"][0])
    thick = int(np.argmax(sides))
    others = max(side for i, side in enumerate(sides) if i != thick)
    if not plane and sides[thick] > _THICK * others and thick != axial:
        raise ValueError(
            f"{path}: voxels of {' x '.join(f'{s:g}' for s in sides)} mm, so that "
            f"slices were not taken axially but along the stored axis {thick} "
            f"({codes[thick]}); say data.plane='axial', 'coronal' or 'sagittal'"
        )
    return axial


def _along(codes, way) -> tuple[int, int]:
    """Return (stored axis, 1 or -1) that runs the way "S", say."""
    if way in codes:
        return codes.index(way), 1
    return codes.index(_OPPOSITE[way]), -1
