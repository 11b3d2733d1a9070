"""For what scan a prior was calibrated, and how: a JSON file beside its law.

`<weights>_scan.json`, or `<weights>_<scan>_scan.json` where there are several, holds
the parts of the settings tree that the law depends on. Who names the weights gets the
numbers of the config that they were calibrated by, on the command line and in Python.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from klip_jax import hub
from klip_jax.files import write_atomically
from klip_jax.run.job import Job
from klip_jax.signatures import check_fields
from klip_jax.spelling import plain, short

FIELDS = "seed", "scan", "posterior", "detectors", "main", "calibration"
_OF_LAW = "draws", "steps", "sampler"
_DRAWN = {"sampler": {"name": "heun.Heun"}}
"""How draws of the model were made where a card does not say it, as in laws that do
not (`run.shipped`)."""


def of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of the settings of a run that a law depends on, as JSON.

    Args:
      settings: of a run with a scanner.
    """
    card = {name: settings[name] for name in FIELDS}
    card["calibration"] = {
        name: value
        for name, value in settings["calibration"].items()
        if name in _OF_LAW
    }
    return plain(card)


def write(path: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """Write the card of the settings of a run."""
    text = json.dumps(of(settings), indent=2) + "\n"
    write_atomically(path, text.encode())


def save(job: Job) -> None:
    """Write scan.json into the workdir, to be shipped beside law.npz."""
    if job.settings["scan"] is not None:
        write(job.folder / "scan.json", job.settings)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Read a card.

    Raises:
      ValueError: if it is none.
    """
    try:
        card = json.loads(pathlib.Path(path).read_text("utf-8"))
        if not isinstance(card, dict):
            raise ValueError("it is no object")
        check_fields(card, FIELDS, "card")
        card["calibration"] = _DRAWN | card["calibration"]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: no card of a scan ({error})") from None
    return card


def find(weights: str, scan: str = "") -> dict[str, Any] | None:
    """Return the card of weights; None if they have none.

    Args:
      weights: as a config names them.
      scan: which, where there are several: "blur" of faces_gray_64_blur_scan.json.

    Raises:
      ValueError: if there are several and none is named, or none of that name.
    """
    stem = pathlib.Path(weights).name.removesuffix(".safetensors")
    known: dict[str, pathlib.Path] = {}
    for path in hub.scan_paths(weights):
        name = path.name.removeprefix(stem).removesuffix("_scan.json").strip("_")
        known.setdefault(name, path)
    if scan and scan not in known:
        raise ValueError(
            f"scan={short(scan)}: {weights} was calibrated for {sorted(known)}"
        )
    if not known:
        return None
    if not scan and len(known) > 1:
        raise ValueError(
            f"{weights} was calibrated for the scans {sorted(known)}: name one, "
            f"scan={sorted(known)[0]!r}"
        )
    return read(known[scan or next(iter(known))])
