"""Arrays of HDF5 and MATLAB files, by name; nothing outside of the file is read.

A link into another file, a dataset whose bytes lie elsewhere and a virtual one are
refused. MATLAB stores the last axis first: its arrays are turned to what MATLAB shows.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from klip_jax.data.base_volume import package

HDF5 = b"\x89HDF\r\n\x1a\n"
LARGEST = 2**32
"""Bytes of an array that is read whole, at most."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator:
    """Open a file to read; close it in the end.

    Raises:
      ValueError: if it is broken or cut off; or for what is raised with it in hand.
    """
    h5py = package("h5py", "an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not a whole HDF5 file ({text})") from None


def names(file) -> list[str]:
    """Return the names of the arrays at the top of an open file."""
    h5py = package("h5py", "an HDF5 file")
    return [
        name
        for name in file
        if isinstance(file.get(name, getlink=True), h5py.HardLink)
        and isinstance(file[name], h5py.Dataset)
    ]


def dataset(file, name: str):
    """Return an array of an open file, of which nothing is read yet.

    Raises:
      ValueError: if it is absent or lies elsewhere.
    """
    h5py = package("h5py", "an HDF5 file")
    where = f"{file.filename}, {name}"
    if name not in file:
        raise ValueError(f"{file.filename}: no array {name!r}; it has {names(file)}")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{where}: is a link; copy the array into the file")
    array = file[name]
    if not isinstance(array, h5py.Dataset):
        raise ValueError(f"{where}: is a group, no array; it has {list(array)}")
    if array.external or array.is_virtual:
        raise ValueError(f"{where}: lies in other files; copy it into this one")
    return array


def whole(array, where: str) -> np.ndarray:
    """Read an array; MATLAB's complex numbers, (real, imag), are numpy's.

    Raises:
      ValueError: if it holds no numbers or text, or declares more than is read.
    """
    if array.size * array.dtype.itemsize > LARGEST:
        raise ValueError(f"{where}: declares {array.shape}, more than {LARGEST} bytes")
    values = array[()]
    if values.dtype.names == ("real", "imag"):
        values = values["real"] + 1j * values["imag"]
    if values.dtype.kind == "O":
        values = np.array([_text(v) for v in np.ravel(values)]).reshape(values.shape)
    if values.dtype.kind not in "uifcbUS":
        raise ValueError(f"{where}: {values.dtype}, no array of numbers")
    return values


def read_matlab(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of numbers of a MATLAB file, v5 or v7.3.

    Raises:
      ValueError: if it is broken.
    """
    with path.open("rb") as stream:
        newer = HDF5 in stream.read(1024)
    if newer:
        with opened(path) as file:
            arrays = {n: whole(dataset(file, n), f"{path}, {n}") for n in names(file)}
        return {name: array.T for name, array in arrays.items()}
    from scipy.io import loadmat

    try:
        arrays = loadmat(path)
    except Exception as error:  # its parser raises many kinds on broken files
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: not a whole MATLAB file ({text})") from None
    return {
        name: array
        for name, array in arrays.items()
        if not name.startswith("__") and getattr(array, "dtype", None) is not None
        if array.dtype.kind in "uifcbU"
    }


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
