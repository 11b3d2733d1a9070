"""The folder of a run: whose it is, with what it was made, and the shipped assets."""

import importlib.metadata
import json
import os
import pathlib
import platform

import jax

import klip_jax
from klip_jax.checkpoint import write_atomically

PACKAGE = pathlib.Path(klip_jax.__file__).parent
FREE = ("images_at_once",)
"""Settings that change no result: a run may be continued with others."""


def shipped(path: str, default: str) -> pathlib.Path:
    """Return `path`, or the file `default` that comes with the package if it is ""."""
    return pathlib.Path(path) if path else PACKAGE / "assets" / default


def claim(folder, settings: dict, contents: dict[str, str]) -> None:
    """Make `folder` the workdir of `settings`, or check that it already is.

    Writes config.json: the settings, the digests of what they name, the versions and
    the git commit. Settings named in `FREE` may differ.

    Args:
      folder: made if it is absent.
      settings: the resolved config.
      contents: {what: digest} of the files behind the settings, so that results of old
        weights are never continued with new ones of the same path.

    Raises:
      ValueError: if another config was run there, naming the first difference, or the
        same with other contents.
      PermissionError: if it cannot be written.
    """
    folder = pathlib.Path(folder)
    path = folder / "config.json"
    plain = json.loads(json.dumps(settings))
    if path.is_file():
        _check_claim(folder, plain, contents)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(f"{folder}: cannot be made ({error})") from None
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder}: not writable; give another --workdir")
    if path.is_file():
        return
    record = {"config": plain, "contents": contents}
    record |= {"versions": versions(), "git": git_commit()}
    write_atomically(path, json.dumps(record, indent=2).encode() + b"\n")


def read_config(folder) -> dict:
    """Read config.json of a workdir.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is not whole.
    """
    path = pathlib.Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no run here; start one with --mode=detect")
    try:
        record = json.loads(path.read_text())
        record["config"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not whole ({error}); give another --workdir"
        ) from None
    return record


def first_difference(before, after, where: str = "") -> str:
    """Return a phrase on the first leaf in which two nested dicts differ, or ""."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            name = f"{where}.{key}" if where else key
            if key not in before or key not in after:
                return f"{name} is in only one of them"
            if found := first_difference(before[key], after[key], name):
                return found
        return ""
    return "" if before == after else f"{where} was {before!r}, is now {after!r}"


def _check_claim(folder, settings, contents):
    record = read_config(folder)
    before = record["config"]
    difference = first_difference(
        *({k: v for k, v in c.items() if k not in FREE} for c in (before, settings))
    )
    if difference:
        raise ValueError(
            f"{folder} belongs to another config: {difference}; give another "
            "--workdir or delete this one"
        )
    for what, digest in contents.items():
        if record.get("contents", {}).get(what, digest) != digest:
            raise ValueError(
                f"{folder} belongs to the same config with another {what}: a file "
                "changed under its name; give another --workdir or delete this one"
            )


def versions() -> dict[str, str]:
    """Return what the run was made with."""
    names = ("jax", "jaxlib", "flax", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    device = jax.devices()[0]
    return found | {
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
