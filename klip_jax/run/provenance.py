"""With what a run is made: versions, the git commit, the random streams, digests."""

import dataclasses
import hashlib
import importlib.metadata
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import klip_jax
from klip_jax.rooms import PACKAGE


def versions() -> dict[str, str]:
    """Return what the run is made with."""
    names = ("jax", "jaxlib", "flax", "numpy")
    installed = {name: importlib.metadata.version(name) for name in names}
    device = jax.devices()[0]
    return installed | {
        "klip_jax": klip_jax.__version__,
        "python": platform.python_version(),
        "device": f"{jax.device_count()} x {device.device_kind}",
    }


def git_commit() -> str:
    """Return the commit of the checkout that the package is in, "" if it is in none."""
    git = PACKAGE.parent / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.endswith(name)), "")
    except OSError:
        return ""


def random_streams() -> dict[str, Any]:
    """Return the settings of jax that decide what random numbers a key gives."""
    names = ("jax_default_prng_impl", "jax_enable_x64", "jax_threefry_partitionable")
    return {name: getattr(jax.config, name) for name in names}


def tree_digest(tree: Any) -> str:
    """Return a SHA-256 over the arrays of a pytree, their names, shapes and types."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def file_digests(target: Any, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return {setting: SHA-256 of the file that it names}.

    Args:
      target: what is built; its attribute `files` names the settings that are files.
      settings: of it.

    Raises:
      OSError: if a file cannot be read.
    """
    return {
        name: hashlib.sha256(pathlib.Path(settings[name]).read_bytes()).hexdigest()
        for name in getattr(target, "files", ())
        if isinstance(settings.get(name), str)
    }


def described(thing: Any) -> Any:
    """Return what decides the numbers of a thing, as JSON: its class and its fields.

    Defaults are spelled out, so that a default that changes is another thing. Arrays
    enter by their digest.
    """
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {f.name: described(getattr(thing, f.name)) for f in _fields(thing)}
        return {"class": _name(type(thing)), **fields}
    if isinstance(thing, Mapping):
        return {str(k): described(v) for k, v in thing.items()}
    if isinstance(thing, tuple | list):
        return [described(v) for v in thing]
    if thing is None or isinstance(thing, bool | int | float | str):
        return thing
    if isinstance(thing, np.ndarray | np.generic | jax.Array):
        return tree_digest(thing)
    if isinstance(thing, type) or hasattr(thing, "__qualname__"):
        return _name(thing)
    return {"class": _name(type(thing)), "arrays": tree_digest(thing)}


def _fields(thing):
    return sorted(dataclasses.fields(thing), key=lambda field: field.name)


def _name(thing) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
