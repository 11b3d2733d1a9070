"""Arrays of .npz files: read whole, by name, never as a pickle."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return {name: shape} of the arrays of an .npz file, of which none is read.

    Raises:
      ValueError: if it is no whole .npz file.
    """
    npy = np.lib.format
    headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

    def read(archive):
        shapes = {}
        for name in archive.files:
            with archive.zip.open(f"{name}.npy") as file:
                shapes[name] = headers[npy.read_magic(file)](file)[0]
        return shapes

    return _open(path, read)


def read_arrays(
    path: Path, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Read the arrays `names` of an .npz file, all of them if it is None.

    Raises:
      ValueError: if it is broken, pickled or lacks one.
    """

    def read(archive):
        wanted = archive.files if names is None else names
        if missing := [name for name in wanted if name not in archive.files]:
            has = sorted(archive.files)
            return f"{path}: no array {missing[0]!r}; it has {has}"
        return {name: archive[name] for name in wanted}

    arrays = _open(path, read)
    if isinstance(arrays, str):
        raise ValueError(arrays)
    return arrays


def labels_of(
    path: Path, shapes: dict[str, tuple[int, ...]], name: str, group: str
) -> np.ndarray | None:
    """Return the class of each image of the array `name`, None where nobody knows.

    Those of the group "id" are in the array of the same name with "labels" for
    "images", if the file has whole numbers there; all others are none of its classes.

    Args:
      path: the .npz file.
      shapes: its `array_shapes`.
      name: of the array of images; its first axis counts them.
      group: what the images are.

    Raises:
      ValueError: if there is another number of labels than of images.
    """
    count = shapes[name][0]
    if group != "id":
        return np.full(count, -1)
    beside = name.replace("images", "labels")
    if beside == name or len(shapes.get(beside, ())) != 1:
        return None
    labels = read_arrays(path, [beside])[beside]
    if labels.dtype.kind not in "iu":
        return None
    if len(labels) != count:
        raise ValueError(
            f"{path}: {len(labels)} numbers in {beside!r} for {count} images in "
            f"{name!r}; give a label for each"
        )
    return labels


def _open(path, read):
    broken = (ValueError, TypeError, OSError, EOFError, AttributeError)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return read(archive)
    except (*broken, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole, plain .npz file ({error})") from None
