"""One array of images, [N, H, W] or [N, H, W, C]: .npy, zarr, or of a MATLAB file.

    data=dict(name="array.load", file="slices.npy", masks="masks.npy")

.npy files are mapped into memory and of zarr the chunks are read that are asked for, so
that thousands of images need not fit. MATLAB's arrays are [H, W, N] or [H, W, C, N], as
is the custom there, and are held in memory.
"""

from pathlib import Path

import numpy as np

from klip_jax.data import base_hdf5
from klip_jax.data.base import Images, ImageSet, count_of, data_root
from klip_jax.data.transforms import Greys, mask_of


def load(
    *,
    file: str,
    root: str = "",
    array: str = "images",
    masks: str = "",
    offset: float = 0.0,
    scale: float = 255.0,
    clip: bool = False,
    label: int = 0,
    group: str = "",
    per_group: int = 0,
) -> ImageSet:
    """Read images.

    Args:
      file: below `root`, or absolute: .npy, a zarr array or group, or .mat.
      root: folder; default $KLIP_DATA, else ../shared/data.
      array: its name, in zarr groups and .mat files that have several.
      masks: likewise a file, [N, H, W], where the anomaly is marked, or in .mat files
        the name of that array; images with marks are "anomalous", all others "id".
      offset, scale, clip: what becomes 0 and 1; see `transforms.Greys`.
      label: the value of the anomaly in masks that are labels; 0 where they are not.
      group: of all images where there are no masks; "" for unknown.
      per_group: first so many; 0 for all.

    Raises:
      FileNotFoundError: if a file is absent.
      ValueError: if a file is broken, pickled, has no such array, or sizes do not fit;
        when it is read, also if pixels are not finite or fall outside.
    """
    path, greys = data_root(root) / file, Greys(offset, scale, clip)
    images = _open(path, array)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] > 4):
        raise ValueError(
            f"{path}: an array {images.shape}; images are [N, H, W] or [N, H, W, C]"
        )
    if images.dtype.kind not in "uifb":
        raise ValueError(f"{path}: images of {images.dtype}; they must be real numbers")
    count = count_of(per_group, images.shape[0], str(path))
    marks, groups = None, (group,) * count
    if masks:
        inside = path.suffix == ".mat"
        other = path if inside else data_root(root) / masks
        marks = _open(other, masks if inside else array)
        if marks.shape != images.shape[:3]:
            raise ValueError(
                f"{other}: masks {marks.shape} for images {images.shape[:3]}"
            )

    def mask(i):
        return mask_of(np.asarray(marks[i]), label, f"{path}, mask {i}")

    if marks is not None:
        groups = tuple("anomalous" if mask(i).any() else "id" for i in range(count))

    def reader(index):
        read = np.stack([np.asarray(images[int(i)]) for i in index])
        greys.check(read, str(path))
        known = None if marks is None else np.stack([mask(int(i)) for i in index])
        return Images(greys.images(read), known)

    return ImageSet(
        tuple(f"{path.stem}_{i:05d}" for i in range(count)),
        groups,
        (*images.shape[1:3], *(images.shape[3:] or (1,))),
        reader,
        () if marks is None else ("masks",),
    )


def _open(path: Path, name: str):
    """Return what gives image i by [i], [N, ...]."""
    if path.suffix == ".mat" and path.is_file():
        arrays = base_hdf5.read_matlab(path)
        if name not in arrays:
            raise ValueError(f"{path}: no array {name!r}; it has {sorted(arrays)}")
        return np.moveaxis(arrays[name], -1, 0)
    if path.suffix == ".npy" and path.is_file():
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(
                f"{path}: not a whole, plain .npy file ({error})"
            ) from None
    if path.is_dir():
        import zarr

        inner = path / name if (path / name).is_dir() else path
        try:
            return zarr.open_array(inner, mode="r")
        except Exception as error:  # zarr has no error of its own
            text = " ".join(str(error).split())[:200]
            raise ValueError(f"{inner}: no whole zarr array ({text})") from None
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such data; set --config.data.root or the environment variable "
            "KLIP_DATA to the folder that holds it"
        )
    raise ValueError(f"{path}: .npy, zarr or .mat is read here; .npz by npz.load")
