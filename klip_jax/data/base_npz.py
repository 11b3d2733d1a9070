"""Arrays of .npz files: read whole, by name, never as a pickle."""

import dataclasses
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from klip_jax.data.base import ImageSet, count_of, data_root


def path_of(root: str, file: str) -> Path:
    """Return where the file of this name is; see `base.data_root`.

    Raises:
      FileNotFoundError: if it is absent.
    """
    path = data_root(root) / file
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such data; set --config.data.root or the environment variable "
            "KLIP_DATA to the folder that holds it"
        )
    return path


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
    path: Path, shapes: dict[str, tuple[int, ...]], name: str, group: str, count: int
) -> np.ndarray | None:
    """Return the class of each image of a group, None where nobody knows.

    Those of the group "id" are whole numbers in an array of the file, if it has one;
    all other images are of none of its classes.

    Args:
      path: the .npz file.
      shapes: its `array_shapes`.
      name: of the array of labels.
      group: what the images are.
      count: how many there are.

    Raises:
      ValueError: if there is another number of labels than of images.
    """
    if group != "id":
        return np.full(count, -1)
    if len(shapes.get(name, ())) != 1:
        return None
    labels = read_arrays(path, [name])[name]
    if labels.dtype.kind not in "iu":
        return None
    if len(labels) != count:
        raise ValueError(
            f"{path}: {len(labels)} numbers in {name!r} for {count} images; give a "
            "label for each"
        )
    return labels


def labelled(
    images: ImageSet, labels: np.ndarray | None, index: Int[np.ndarray, " n"]
) -> ImageSet:
    """Return `images`, which are at `index` of a file, with its `labels`."""
    if labels is None:
        return images
    return dataclasses.replace(images, labels=tuple(labels[index].tolist()))


def spaced(
    available: int, per_group: int, part: tuple[float, ...], where: str
) -> Int[np.ndarray, " n"]:
    """Return which images of a file are read: evenly spaced over a part of it.

    Args:
      available: images of the file.
      per_group: how many, 0 for all of the part.
      part: shares of the file where it begins and ends, in its order.
      where: they are, for the message.

    Raises:
      ValueError: if the part is none, or has fewer images.
    """
    if len(part) != 2 or not 0 <= part[0] < part[1] <= 1:
        raise ValueError(f"data.part={part}: give shares with 0 <= first < last <= 1")
    first, last = (round(share * available) for share in part)
    whole = tuple(part) == (0, 1)
    count = count_of(per_group, last - first, where if whole else f"part of {where}")
    if not count:
        raise ValueError(f"data.part={part} of {where} has no image; give a larger one")
    index = np.arange(count)
    if count < last - first:
        index = np.linspace(0, last - first - 1, count).astype(int)
    return first + index


def _open(path, read):
    broken = (ValueError, TypeError, OSError, EOFError, AttributeError)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return read(archive)
    except (*broken, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole, plain .npz file ({error})") from None
