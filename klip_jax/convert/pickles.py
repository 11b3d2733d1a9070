"""Arrays out of pickles, executing nothing.

Read are plain pickles, the zip and the older stream of torch.save, the objects with
their source code that the EDM release pickles (the code is not looked at), and the .npy
files in which numpy keeps a dict. Arrays and tensors become numpy arrays, torch's
modules and EDM's objects inert `Record`s of their state; any other name is refused. See
`stack_machine` for what a pickle can do here.

Reference: the documentation of torch.save, of numpy.lib.format and of
ndarray.__reduce__.
"""

import io
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from klip_jax.convert import torch_files
from klip_jax.convert.stack_machine import Name, run

_BROKEN = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError),
    *(OverflowError, RecursionError, MemoryError, NotImplementedError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, struct.error, RuntimeError),
)


class Record:
    """What is known of an object that was not built: its class's name and its state."""

    def __init__(self, name: str, state: dict | None = None):
        self.name, self.state = name, {} if state is None else state


def load(path) -> Any:
    """Read a pickle, a file of torch.save, or an .npy file of a dict.

    Returns:
      Numbers, text, bytes, lists, tuples, dicts, sets, numpy arrays and `Record`s.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is broken, or wants anything that is not in this module.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    data = path.read_bytes()
    try:
        return loads(data)
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path}: not read, and not executed: {reason}") from None


def loads(data: bytes) -> Any:
    """Read the bytes of a file; as `load`, but any error of Python if broken."""
    if data[:6] == b"\x93NUMPY":
        return _npy(io.BytesIO(data))
    if data[:4] == b"PK\x03\x04":
        return torch_files.read_zip(data, _find, _build)
    stream = io.BytesIO(data)
    content = run(stream, _find, _build)
    is_torch = type(content) is int and content == torch_files.MAGIC
    return torch_files.read_stream(stream, _find, _build) if is_torch else content


def arrays(content: Record | Mapping) -> dict[str, np.ndarray]:
    """Return {dotted name: array} of the parameters and buffers of a torch module.

    Args:
      content: a module's `Record`, or a state dict.
    """
    if not isinstance(content, Record):
        return {k: v for k, v in content.items() if isinstance(v, np.ndarray)}
    flat: dict[str, np.ndarray] = {}
    seen, open_ = set(), [("", content)]
    while open_:
        prefix, record = open_.pop()
        # Each module once, in whatever circles they refer to each other.
        if not isinstance(record, Record) or id(record) in seen:
            continue
        seen.add(id(record))
        own = [record.state.get(part) for part in ("_parameters", "_buffers")]
        for part in (part for part in own if isinstance(part, dict)):
            flat |= {
                prefix + k: a for k, a in part.items() if isinstance(a, np.ndarray)
            }
        modules = record.state.get("_modules")
        if isinstance(modules, dict):
            open_ += [(f"{prefix}{name}.", m) for name, m in modules.items()]
    return flat


class _Unbuilt:
    """An array or dtype of numpy before its state is known."""

    def __init__(self, dtype=None):
        self.dtype = dtype


def _find(module, name):
    """Return what stands for a name, if it is allowed."""
    text = f"{module}.{name}"
    if known := NAMES.get(text.replace("numpy._core.", "numpy.core.")):
        return known
    # Modules of torch become a record of their parameters, and what trainers keep
    # beside them one of its state; neither library is asked.
    if module.startswith(("torch.nn.modules.", "pytorch_lightning.callbacks.")):
        return Name(text, new=lambda: Record(name))
    raise ValueError(f"it wants {text}, which is no number, array or plain container")


def _build(target, state):
    """Return `target` with its state."""
    if isinstance(target, _Unbuilt) and target.dtype is not None:
        return target.dtype.newbyteorder(state[1])
    if isinstance(target, _Unbuilt):
        _, shape, dtype, fortran, contents = state
        return _array(contents, dtype, shape, "F" if fortran else "C")
    if isinstance(target, Record) and isinstance(state, dict):
        target.state.update(state)
    elif not (isinstance(target, dict) and isinstance(state, dict)):
        raise ValueError(f"it gives a state to a {type(target).__name__}")
    # What is left are attributes of a dict, of no interest.
    return target


def _array(contents, dtype, shape, order="C"):
    """Return the array that `contents` are all of."""
    dtype = dtype.dtype if isinstance(dtype, _Unbuilt) else dtype
    size = torch_files.size_of(shape)
    if dtype.hasobject:
        if type(contents) is not list or len(contents) != size:
            raise ValueError(f"it has an array {shape} of other objects")
        return contents[0] if shape == () else contents
    contents = contents.encode("latin1") if isinstance(contents, str) else contents
    if size * dtype.itemsize != len(contents):
        raise ValueError(f"it has an array {shape} of {dtype} in {len(contents)} bytes")
    return np.frombuffer(contents, dtype).reshape(shape, order=order)


def _dtype(name, *flags):
    if type(name) is not str or (dtype := np.dtype(name)).kind not in "biufcOSU":
        raise ValueError(f"it has an array of {name!r}")
    return _Unbuilt(dtype)


def _persistent_object(meta):
    """Return an object of EDM as its state; its source code is not looked at."""
    if type(meta["class_name"]) is not str or type(meta["state"]) is not dict:
        raise ValueError("it has an object without class and state")
    return Record(meta["class_name"], meta["state"])


def _storage_in_bytes(data):
    """Return a storage as pickled tensors have it: a stream of torch.save."""
    stream = io.BytesIO(data)
    if run(stream, _find, _build) != torch_files.MAGIC:
        raise ValueError("it has a storage that is no stream of torch.save")
    return torch_files.read_stream(stream, _find, _build)


def _npy(stream):
    """Read an .npy file: of numbers, or a pickled object array, as of a dict."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        header = np.lib.format.read_array_header_1_0(stream)
    else:
        header = np.lib.format.read_array_header_2_0(stream)
    shape, fortran, dtype = header
    if dtype.kind not in "biufcOSU":
        raise ValueError(f"it has an array of {dtype}")
    if dtype.hasobject:
        return run(stream, _find, _build)
    return _array(stream.read(), dtype, shape, "F" if fortran else "C")


def _encode(text, encoding):
    """Return bytes that protocol 2 has as text."""
    if encoding != "latin1":
        raise ValueError(f"it has text encoded as {encoding!r}")
    return text.encode("latin1")


_APPLIED = {
    # Sets are of no interest; lists need no hashing.
    "builtins.set": lambda items=(): items,
    "__builtin__.set": lambda items=(): items,
    "builtins.bytes": lambda: b"",
    "__builtin__.bytes": lambda: b"",
    "_codecs.encode": _encode,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": lambda kind, shape, code: _Unbuilt(),
    "numpy.core.multiarray.scalar": lambda dtype, data: _array(data, dtype, ())[()],
    "numpy.core.numeric._frombuffer": _array,
    "torch.Size": lambda sizes: sizes,
    "torch.device": lambda *place: str(place),
    "torch._utils._rebuild_tensor": torch_files.tensor,
    "torch._utils._rebuild_tensor_v2": torch_files.tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
    "torch.storage._load_from_bytes": _storage_in_bytes,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
}
_DICTS = ("collections.OrderedDict", "dnnlib.util.EasyDict")
_MENTIONED = [f"torch.{name}" for name in torch_files.STORAGES] + [
    *("numpy.ndarray", "torch.storage.UntypedStorage", "torch.storage.TypedStorage"),
    *("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64"),
    *("torch.uint8", "torch.int8", "torch.int16", "torch.int32", "torch.int64"),
    "torch.bool",
]
NAMES = {text: Name(text) for text in _MENTIONED}
NAMES |= {text: Name(text, apply=apply) for text, apply in _APPLIED.items()}
NAMES |= {text: Name(text, apply=lambda of=(): dict(of), new=dict) for text in _DICTS}
"""What a pickle may refer to; nothing of numpy or torch itself is ever called."""
