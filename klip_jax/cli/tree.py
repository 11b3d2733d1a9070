"""From the words of a command to the tree of settings that a config file would give.

What the data, the weights and their card (`run.scan_card`) tell is taken from there;
what nobody tells is asked for; nothing comes from another experiment.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klip_jax import hub
from klip_jax.assets.default_config import get_config
from klip_jax.cli.places import placed, put
from klip_jax.data.kinds import settings_of
from klip_jax.recipe import Recipe
from klip_jax.rooms import resolve
from klip_jax.run import scan_card
from klip_jax.run.settings import detectors

DETECTORS = "klip,controls"
_RUN = dict(images_at_once=1, chunk=16, lease_minutes=10.0)
_NET = dict(name="unet.UNet", channels=(48, 64, 128), norm_over="image")
SIZES = "crop", "resize", "pad"
"""Settings of `data.fit`, which makes images the size of the prior."""
_STEPS = 5000
_HELD_OUT = 0.9
"""Patients up to this share are trained on, the others are not."""
_MOST = 128
"""Images at most that the errors of weights are told of."""


def detection(asked: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a run on images or measurements.

    Args:
      asked: what `klip detect` names, absent or None where it was not given.
      more: other settings, by name or by their place in the tree, as texts.

    Raises:
      ValueError, FileNotFoundError: one sentence on what is missing or unknown.
    """
    weights = asked.get("prior")
    if not weights:
        raise ValueError(
            "which prior? give --prior=NAME, a name or a file of weights; klip list "
            "weights says which there are, klip train makes one of your images"
        )
    weights = _absolute(weights)
    data = _data(asked)
    settings: dict[str, Any] = {
        "seed": 0,
        "data": data,
        "scan": None,
        "prior": {"weights": weights},
        "classifier": {"weights": asked.get("classifier") or ""},
        "posterior": {},
        "detectors": {},
        "main": "",
        "calibration": get_config().calibration.to_dict(),
        "run": dict(_RUN),
        "train": {},
    }
    card = _card(asked, weights)
    if asked.get("operator") != "none":
        settings["scan"] = _scan(asked, card, weights)
    if card is not None and settings["scan"] is not None:
        settings["calibration"] |= card["calibration"]
        settings |= {k: card[k] for k in ("seed", "posterior", "detectors", "main")}
    if asked.get("healthy"):
        settings["calibration"]["healthy"] = settings_of(asked["healthy"])
    chosen = asked.get("detectors")
    if not chosen and not settings["detectors"]:
        if settings["scan"] is None:
            raise ValueError(
                "which detectors look at images themselves? give --detectors=, such as "
                "msma.MSMA,noised_reconstruction; see klip list detectors"
            )
        chosen = DETECTORS
    if chosen:
        settings["detectors"] = detectors(chosen, settings["detectors"])
    if settings["main"] not in settings["detectors"]:
        settings["main"] = next(iter(settings["detectors"]))
    for name, place in (
        ("seed", ("seed",)),
        ("draws", ("calibration", "draws")),
        ("images_at_once", ("run", "images_at_once")),
    ):
        if asked.get(name) is not None:
            put(settings, place, asked[name])
    return placed(settings, more)


def training(asked: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a training on images of the user's own.

    The held-out images are of other patients of the same set, or those of --test.
    """
    if not asked.get("images"):
        raise ValueError("train on what? give --images=PATH, see klip train --help")
    own = _reader(asked, asked["images"])
    train: dict[str, Any] = {
        "data": _part(own, (0.0, _HELD_OUT), asked),
        "test": _part(own, (_HELD_OUT, 1.0), asked, most=_MOST),
        "augment": {},
        "net": dict(_NET),
        "prior": {"name": "edm.EDM", "sigma_data": 0.5},
        "licence": asked.get("licence") or "not stated",
        "init": asked.get("init") or "",
        "recipe": Recipe(steps=_STEPS)._asdict(),
    }
    if asked.get("test"):
        train["data"] = _part(own, (0.0, 1.0), asked)
        held_out = _reader(asked, asked["test"])
        train["test"] = _part(held_out, (0.0, 1.0), asked, most=_MOST)
    if train["init"]:
        _, record = hub.load(train["init"])
        train |= {name: record[name] for name in ("net", "prior")}
        # The network is trained already: small steps, that it forgets little.
        train["recipe"] |= {"learning_rate": 3e-4}
    settings = {
        "seed": 0,
        "data": {"measurements": ""},
        "scan": None,
        "prior": {"weights": ""},
        "classifier": {"weights": ""},
        "posterior": {},
        "detectors": {"klip": {"name": "klip.KLIP"}},
        "main": "klip",
        "calibration": get_config().calibration.to_dict() | {"draws": 0},
        "run": dict(_RUN),
        "train": train,
    }
    return placed(settings, more)


def _data(asked) -> dict[str, Any]:
    images, measured = asked.get("images"), asked.get("measurements")
    if bool(images) == bool(measured):
        raise ValueError(
            "look at what? give --images=PATH, which are measured by simulation, or "
            "--measurements=FILE"
        )
    if measured:
        return {"measurements": _absolute(measured)}
    return _reader(asked, images) | {"measurements": ""}


def _reader(asked, path: str) -> dict[str, Any]:
    """Return the settings of the reader of a path, and of what fits its images."""
    fit: dict[str, Any] = {n: _sizes(asked[n]) for n in SIZES if asked.get(n)}
    if asked.get("channels"):
        fit["channels"] = asked["channels"]
    reader = _plain_reader(asked, path)
    return {"name": "fit.load", "data": reader, **fit} if fit else reader


def _sizes(text: str) -> tuple[int, ...]:
    """Return the whole numbers of "64,48"."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"command line: {text!r}: give whole numbers of pixels, 64 or 64,48"
        ) from None


def _plain_reader(asked, path: str) -> dict[str, Any]:
    if not asked.get("reader"):
        return settings_of(path, masks=asked.get("masks") or "")
    reader, place = resolve("data", asked["reader"]), str(Path(path).absolute())
    known = inspect.signature(reader).parameters
    field = next((name for name in ("file", "folder", "path") if name in known), None)
    if field is None:
        raise ValueError(f"--reader={asked['reader']}: it reads no file or folder")
    settings: dict[str, Any] = {"name": asked["reader"], field: place}
    if not asked.get("masks"):
        return settings
    masks = str(Path(asked["masks"]).absolute())
    if "masks" in known:
        return settings | {"masks": masks}
    return {"name": "masked.load", "data": settings, "folder": masks}


def _part(reader, share, asked, *, most: int = 0) -> dict[str, Any]:
    groups = ("id",) if asked.get("masks") else ()
    part = {"name": "part.load", "data": reader, "share": share, "groups": groups}
    return part | {"most": most}


def _card(asked, weights: str) -> dict[str, Any] | None:
    """Return the card of the scan that the weights were calibrated for, if it is it."""
    operator = asked.get("operator")
    if operator == "none":
        return None
    if operator and not asked.get("scan"):
        cards = [scan_card.read(path) for path in hub.scan_paths(weights)]
        same = (c for c in cards if c["scan"]["operator"]["name"] == operator)
        return next(same, None)
    return scan_card.find(weights, asked.get("scan") or "")


def _scan(asked, card, weights: str) -> dict[str, Any]:
    operator, noise_std = asked.get("operator"), asked.get("noise_std")
    if card is None and not operator:
        raise ValueError(
            f"{weights} was calibrated for no scan: what measured? give "
            "--operator=NAME and --noise_std=X (klip list operators), or "
            "--operator=none to look at the images themselves"
        )
    scan = dict(card["scan"]) if card is not None else {"operator": {"name": operator}}
    if noise_std is not None:
        scan["noise_std"] = noise_std
    if "noise_std" not in scan:
        raise ValueError(
            "how noisy are the measurements? give --noise_std=X, in their own unit"
        )
    return scan


def _absolute(name: str) -> str:
    """Return the absolute path of a file or folder; a name stays what it is."""
    path = Path(name)
    named = len(path.parts) == 1 and not path.suffix
    return name if named or not path.exists() else str(path.absolute())
