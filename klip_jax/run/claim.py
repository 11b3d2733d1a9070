"""Whose a workdir is: config.json, made once, and compared with from then on.

It holds the settings, the digests of all that they name (weights, images, masks,
measurements), the random streams and the versions. Their digest stands in every part of
the results, so that those of two configs never mix.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from klip_jax.files import temporaries
from klip_jax.run.lease import FOLDER, anybody
from klip_jax.run.provenance import git_commit, random_streams, versions
from klip_jax.run.settings import binding
from klip_jax.run.store import create, read_config

_RESULTS = "scores", "maps.zarr", "maps", "checkpoints", "train.csv"


def claim(
    folder,
    settings: Mapping[str, Any],
    contents: Mapping[str, str],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Make `folder` the workdir of `settings`, or check that it already is.

    Of two claims at the same instant one wins, and the other is compared with it. What
    was left by workers that were killed is swept.

    Args:
      folder: made if it is absent.
      settings: of `settings.check`; those outside `settings.binding` may differ.
      contents: {what: digest} of what the settings name, so that results of old weights
        or images are never continued with new ones of the same name.
      about: what else config.json tells: the detectors, say.

    Raises:
      ValueError: if another config was run there, naming the first difference, or the
        same with other contents or random streams; if it holds results of nobody, or of
        another version.
      PermissionError: if it cannot be written.
    """
    folder, random = pathlib.Path(folder), random_streams()
    wanted = binding(settings)
    text = json.dumps([wanted, dict(contents), random], sort_keys=True)
    meta = {
        "settings": settings,
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "chunk": settings["run"]["chunk"],
        **(about or {}),
        "contents": contents,
        "random": random,
        "versions": versions(),
        "git": git_commit(),
    }
    _check_writable(folder)
    if not (folder / "config.json").is_file():
        held = [name for name in _RESULTS if (folder / name).exists()]
        if held:
            raise ValueError(
                f"{folder} holds {held[0]} but no config.json to say what of; give "
                "another --workdir or delete this one"
            )
        try:
            create(folder, meta)
        except FileExistsError:
            pass  # another worker was first: compare with what it wrote
    _compare(folder, read_config(folder), meta)
    sweep(folder, settings["run"]["lease_minutes"])


def sweep(folder, minutes: float) -> None:
    """Remove what workers that were killed did not finish writing.

    Nothing is removed while anybody is at work. What is written without a lease,
    config.json and leases themselves, stays until it is as old as a dead lease.
    """
    left = temporaries(folder)
    if anybody(folder, minutes):
        return
    for path in left:
        unleased = path.parent.name == FOLDER or path.name.startswith(".config.json")
        with contextlib.suppress(FileNotFoundError):
            if not unleased or time.time() - path.stat().st_mtime > 60 * minutes:
                path.unlink()


def first_difference(before, after, where: str = "") -> str:
    """Return a phrase on the first leaf in which two nested dicts differ, or ""."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            name = f"{where}.{key}" if where else key
            if key not in before or key not in after:
                return f"{name} is in only one of them"
            if difference := first_difference(before[key], after[key], name):
                return difference
        return ""
    return "" if before == after else f"{where} was {before!r}, is now {after!r}"


def _check_writable(folder):
    new = not folder.is_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermissionError(f"{folder}: cannot be made ({error})") from None
    if not os.access(folder, os.W_OK):
        if new:
            folder.rmdir()
        raise PermissionError(f"{folder}: not writable; give another --workdir")


def _compare(folder, before, after):
    remedy = "give another --workdir or delete this one"
    then, now = (binding(meta["settings"]) for meta in (before, after))
    if difference := first_difference(then, now):
        raise ValueError(f"{folder} belongs to another config: {difference}; {remedy}")
    for what, digest in after["contents"].items():
        if before.get("contents", {}).get(what) != digest:
            raise ValueError(
                f"{folder} belongs to the same config with other {what}: a file "
                f"changed under its name; {remedy}"
            )
    if difference := first_difference(before.get("random"), after["random"]):
        raise ValueError(
            f"{folder} was begun with other random streams: {difference}; {remedy}"
        )
    if before["digest"] != after["digest"]:
        raise ValueError(f"{folder}: config.json was changed by hand; {remedy}")
