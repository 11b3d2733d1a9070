"""What torch.save writes: a zip, or the older stream, of a pickle and raw storages.

A tensor is a view of a storage: entry i is number offset + sum_k i_k stride_k.

Reference: the documentation of torch.save and of torch.Tensor.stride.
"""

import io
import struct
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np

from klip_jax.convert.stack_machine import Name, run

STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "UntypedStorage": np.uint8,
}
MAGIC = 0x1950A86A20F9469CFC6C
"""The first thing in the older stream."""


class Storage(NamedTuple):
    """The numbers [N] behind tensors, as torch keeps them."""

    numbers: np.ndarray


def tensor(storage, offset, size, stride, *rest):
    """Return a view of a storage, inside which it must lie."""
    numbers, count = storage.numbers, size_of(size)
    if len(stride) != len(size) or size_of(stride) < 0 or size_of((offset,)) < 0:
        raise ValueError(f"it has a tensor {size} with strides {stride}")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    # Strides of 0 would make a huge array of few numbers.
    if count and (last >= len(numbers) or count > len(numbers)):
        raise ValueError(f"it has a tensor {size} in a storage of {len(numbers)}")
    if not count:
        return np.zeros(size, numbers.dtype)
    steps = [s * numbers.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(
        numbers[offset:], size, steps, writeable=False
    )


def size_of(shape) -> int:
    """Return the product of `shape`; ValueError unless they are counts."""
    total = 1
    for n in shape:
        if type(n) is not int or not 0 <= n < 2**48:
            raise ValueError(f"it has the shape {tuple(shape)}")
        total *= n
    return total


def read_zip(data: bytes, find, build):
    """Read the zip: data.pkl, and one member a storage; see `run` for the rest."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        (program,) = [n for n in members if n.endswith("/data.pkl")]
        folder, left = program.removesuffix("data.pkl"), len(data)

        def read(name):
            nonlocal left
            left -= members[name].file_size
            # A small file stays small: nothing is expanded, or read many times.
            if members[name].compress_type != zipfile.ZIP_STORED or left < 0:
                raise ValueError(f"its member {name} is compressed or larger than it")
            return archive.read(name)

        order = folder + "byteorder"
        if order in members and read(order) != b"little":
            raise ValueError("it was written by a big-endian machine")
        storages = {}

        def persistent(identifier):
            _, kind, key, *_ = identifier
            if key not in storages:
                dtype = _numbers_of(kind)
                numbers = np.frombuffer(read(f"{folder}data/{key}"), dtype)
                storages[key] = Storage(numbers.astype(_readable(dtype), copy=False))
            return storages[key]

        return run(io.BytesIO(read(program)), find, build, persistent)


def read_stream(stream: io.BytesIO, find, build):
    """Read the older stream after its magic number; see `run` for the rest."""
    run(stream, find, build)  # the version
    run(stream, find, build)  # sizes of C's types
    waiting, left = {}, len(stream.getbuffer())

    def persistent(identifier):
        nonlocal left
        _, kind, key, _, count, *view = identifier
        if view not in ([], [None]):
            raise ValueError("it has a view of a storage")
        if key not in waiting:
            dtype = _numbers_of(kind)
            left -= size_of((count,)) * dtype.itemsize
            if left < 0:
                raise ValueError("it has storages larger than the file")
            waiting[key] = dtype, Storage(np.zeros(count, _readable(dtype)))
        return waiting[key][1]

    content = run(stream, find, build, persistent)
    # The numbers come after the program that uses them; its tensors are views.
    for key in run(stream, find, build):
        dtype, storage = waiting[key]
        (count,) = struct.unpack("<q", stream.read(8))
        if count != len(storage.numbers):
            raise ValueError(f"it has a storage of {count}, not {len(storage.numbers)}")
        storage.numbers[:] = np.frombuffer(stream.read(count * dtype.itemsize), dtype)
    return content


def _numbers_of(kind):
    """Return the type of the numbers in a storage's class."""
    name = kind.text.rpartition(".")[2] if isinstance(kind, Name) else ""
    if name not in STORAGES:
        raise ValueError("it has a storage of an unknown type")
    return np.dtype(STORAGES[name])


def _readable(dtype):
    """Return the type that numpy computes with: float32 for bfloat16."""
    return np.dtype(np.float32) if dtype == ml_dtypes.bfloat16 else dtype
