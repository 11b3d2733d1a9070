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

    found = _open(path, read)
    if isinstance(found, str):
        raise ValueError(found)
    return found


def _open(path, read):
    broken = (ValueError, TypeError, OSError, EOFError, AttributeError)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return read(archive)
    except (*broken, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole, plain .npz file ({error})") from None
