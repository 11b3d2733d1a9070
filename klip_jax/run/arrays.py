"""Arrays [N, ...] of a run in one Zarr group, chunked along the images.

A chunk is one file, written whole by zarr and flushed here; it carries a checksum, so
that a broken one is noticed when it is read.
"""

import contextlib
import functools
import json
import pathlib

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from klip_jax.files import flush, flush_folder


class StoredArray:
    """One array [N, ...] on disk: slice it, and only the chunks that you ask are read.

    Attributes:
      name, shape, dtype: of the whole array; images that are not done are NaN or False.
    """

    def __init__(self, root: pathlib.Path, name: str):
        self.name, self._path = name, root / name
        try:
            self._array = zarr.open_array(self._path, mode="r")
        except Exception as error:
            # zarr has no error of its own: a broken zarr.json ends in any.
            message = f"{self._path}: no whole array ({short(error)}); {_REMEDY}"
            raise ValueError(message) from None
        self.shape, self.dtype = self._array.shape, self._array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index) -> np.ndarray:
        try:
            return np.asarray(self._array[index])
        except (RuntimeError, ValueError, OSError) as error:
            message = f"{self._path}: a chunk is broken ({short(error)}); {_REMEDY}"
            raise ValueError(message) from None


def chunk_file(root: pathlib.Path, name: str, chunk: int, dimensions: int):
    """Return the path of one chunk of an array of `dimensions` axes."""
    return root / name / ".".join(["c", str(chunk), *["0"] * (dimensions - 1)])


def names(root: pathlib.Path) -> list[str]:
    """Return the names of the arrays below `root`, sorted."""
    folders = (path.parent for path in root.rglob("zarr.json"))
    return sorted(f.relative_to(root).as_posix() for f in folders if _is_array(f))


def write(
    root: pathlib.Path,
    name: str,
    array: np.ndarray,
    first: int,
    total: int,
    chunk_size: int,
) -> list[int]:
    """Write the images from `first` on, one chunk; the array is made if it is absent.

    Args:
      root: of the group.
      name: of the array.
      array: [n, ...]; floats are kept as float32, bool and integers as they are.
      first: index of the first image, a multiple of `chunk_size`.
      total: N, images of the whole array.
      chunk_size: images a chunk.

    Returns:
      [axes of the array, bytes of the chunk].

    Raises:
      ValueError: if it holds no numbers, or was begun with another shape or type.
    """
    array = np.asarray(array)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    if array.dtype.kind not in "fbiu":
        raise ValueError(f"{name!r} is {array.dtype}; store numbers or bool")
    shape = (total, *array.shape[1:])
    with zarr.config.set({"array.write_empty_chunks": True}):
        # Also where nothing but NaN was seen: what has no file is not done.
        target = _open(root, name, shape, array.dtype, chunk_size)
        if target.shape != shape or target.dtype != array.dtype:
            raise ValueError(
                f"{root / name}: {target.dtype} {target.shape} in the workdir, now "
                f"{array.dtype} {shape}; give another --workdir"
            )
        target[first : first + len(array)] = array
    path = chunk_file(root, name, first // chunk_size, array.ndim)
    flush(path)
    flush_folder(path.parent)
    return [array.ndim, path.stat().st_size]


def short(error: Exception) -> str:
    """Return what an error of others says, in one line of bounded length."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _open(root, name, shape, dtype, chunk_size):
    # Another worker may be first at any time, with the group or with the array.
    path = root / name
    make = functools.partial(
        zarr.create_array,
        root,
        name=name,
        shape=shape,
        chunks=(chunk_size, *(max(side, 1) for side in shape[1:])),
        dtype=dtype,
        fill_value=np.nan if dtype.kind == "f" else 0,
        compressors=ZstdCodec(level=3, checksum=True),
        # One folder an array, whatever its rank.
        chunk_key_encoding={"name": "default", "separator": "."},
    )
    try:
        if not (path / "zarr.json").is_file():
            with contextlib.suppress(zarr.errors.ContainsGroupError):
                zarr.open_group(root, mode="a")
            return make()
    except zarr.errors.ContainsArrayError:
        pass
    return zarr.open_array(path, mode="r+")


def _is_array(path) -> bool:
    try:
        return json.loads((path / "zarr.json").read_text())["node_type"] == "array"
    except (OSError, ValueError, KeyError, TypeError):
        return True  # broken: whoever opens it is told


_REMEDY = "delete scores/ of the workdir and run again: all is made anew"
