"""The tree of settings of a run, checked before anything is built.

seed
data         dict(name=..., ...), measurements="" or a file with y
scan         dict(operator=dict(name=..., ...), noise_std=...); None: no scanner,
             the images are looked at themselves
prior        dict(weights=...): a hub name, a file, a folder or a hub id
classifier   dict(weights=...): a hub name or a file; dict(weights="") is none
posterior    settings of `posterior.PosteriorSampler`
detectors    {name: dict(name="klip.KLIP", ...)}, or a text "klip,controls"
main         the detector that the report is about
calibration  draws, sampler, steps, law, healthy: see `klip_jax.run.law`
run          what changes no result: images_at_once, chunk, lease_minutes
train        see `klip_jax.run.train`
"""

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

from klip_jax import rooms, signatures
from klip_jax.spelling import plain, short, snake

FREE = ("run",)
"""Parts that change no result: a run may be continued with others."""
FREE_IN_TRAINING = "steps", "checkpoint_every", "keep"
"""Of train.recipe: a training may be continued further, or with more checkpoints."""
PARTS = {
    "scan": ("operator", "noise_std"),
    "prior": ("weights",),
    "classifier": ("weights",),
    "posterior": None,
    "calibration": ("draws", "sampler", "steps", "law", "healthy"),
    "run": ("images_at_once", "chunk", "lease_minutes"),
    "train": None,
}
TREE = ("seed", "data", "detectors", "main", *PARTS)
NOISE = 1e-6, 1e6
"""Range of noise_std: float32 measurements carry no less, and no more."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check(settings: Mapping[str, Any]) -> dict:
    """Return the settings as plain data, with the detectors spelled out.

    Raises:
      ValueError: naming the first field that is unknown, missing or cannot work.
    """
    signatures.check_fields(settings, TREE, "config")
    settings = dict(settings)
    for part, fields in PARTS.items():
        if part == "scan" and _no_scanner(settings["scan"]):
            settings["scan"] = None
            continue
        if not isinstance(settings[part], Mapping):
            raise ValueError(f"{part}={short(settings[part])}: give a dict")
        if fields is not None:
            signatures.check_fields(settings[part], fields, part)
    settings["detectors"] = detectors(settings["detectors"])
    for words, broken in _rules(settings):
        if broken:
            raise ValueError(words)
    return plain(settings)


def binding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a workdir is bound to: all but those that are free."""
    bound = {k: v for k, v in settings.items() if k not in FREE}
    train = bound.get("train")
    if isinstance(train, Mapping) and isinstance(train.get("recipe"), Mapping):
        recipe = train["recipe"].items()
        recipe = {k: v for k, v in recipe if k not in FREE_IN_TRAINING}
        bound["train"] = {**train, "recipe": recipe}
    return bound


def detectors(chosen: Any, known: Mapping[str, Any] | None = None) -> dict[str, dict]:
    """Return {name: settings} of the detectors that are asked for.

    Args:
      chosen: such a dict, or a text of names separated by commas: one of `known`, a
        file of the room ("controls": all that it holds), one of its detectors
        ("msma.MSMA"), or your own ("package.module:Name").
      known: settings by name, of the config that the text replaces.

    Raises:
      ValueError: if a name is unknown, unsafe or given twice, or none is left.
    """
    if isinstance(chosen, str):
        by_name: dict[str, dict] = {}
        for word in filter(None, map(str.strip, chosen.split(","))):
            for name, settings in _meant(word, known or {}).items():
                if name in by_name:
                    raise ValueError(f"detectors: there are two of the name {name!r}")
                by_name[name] = settings
        chosen = by_name
    if not isinstance(chosen, Mapping) or not chosen:
        raise ValueError(
            f"detectors={short(chosen)}: give at least one, as in "
            "--config.detectors=klip,controls"
        )
    for name, settings in chosen.items():
        if not _NAME.fullmatch(str(name)) or name == "reconstruction":
            raise ValueError(
                f"detectors: {short(name)} cannot be a name; use 1 to 64 of "
                "A-Z a-z 0-9 _ - (and not 'reconstruction')"
            )
        if not isinstance(settings, Mapping) or "name" not in settings:
            raise ValueError(
                f"detectors.{name}={short(settings)}: give dict(name=..., ...)"
            )
    return {str(name): dict(settings) for name, settings in chosen.items()}


def _meant(word: str, known: Mapping[str, Any]) -> dict[str, dict]:
    if word in known:
        return {word: dict(known[word])}
    if "." in word or ":" in word:
        rooms.resolve("detectors", word)
        return {snake(re.split(r"[.:]", word)[-1]): dict(name=word)}
    if word not in rooms.modules("detectors"):
        raise ValueError(
            f"detectors: no {short(word)}; there are {sorted(known)} in the "
            f"config and the files {list(rooms.modules('detectors'))}"
        )
    names = (f"{word}.{public}" for public in _complete(word))
    return {snake(name.rpartition(".")[2]): dict(name=name) for name in names}


def _complete(module_name: str) -> list[str]:
    """Return the detectors of a file that can be built without settings."""
    names = []
    for public in rooms.public_names(rooms.module("detectors", module_name)):
        target = rooms.resolve("detectors", f"{module_name}.{public}")
        if not inspect.isclass(target) or not hasattr(target, "judge"):
            continue
        parameters = inspect.signature(target).parameters.values()
        if all(p.default is not p.empty for p in parameters):
            names.append(public)
    return names


def _no_scanner(scan) -> bool:
    return scan is None or (isinstance(scan, Mapping) and scan.get("operator") is None)


def _rules(settings):
    """Yield (what is wrong, whether it is), cheap ones only."""
    seed, main = settings["seed"], settings["main"]
    yield (
        f"seed={short(seed)}: a whole number of 0 .. 2^32 - 1",
        not _whole(seed, 0) or seed >= 2**32,
    )
    names = list(settings["detectors"])
    yield f"main={short(main)}: choose one of {names}", main not in names
    if settings["scan"] is not None:
        noise = settings["scan"]["noise_std"]
        words = f"scan.noise_std={short(noise)}: must be in [{NOISE[0]}, "
        words += f"{NOISE[1]}]; KL diverges at 0, and float32 carries no less"
        yield words, not _number(noise) or not NOISE[0] <= noise <= NOISE[1]
    calibration, run = settings["calibration"], settings["run"]
    for part, field, least in (
        (calibration, "draws", 0),
        (calibration, "steps", 2),
        (run, "images_at_once", 1),
        (run, "chunk", 1),
    ):
        where = "calibration" if part is calibration else "run"
        value = short(part[field])
        yield (
            f"{where}.{field}={value}: a whole number of at least {least}",
            not _whole(part[field], least),
        )
    minutes, law = run["lease_minutes"], calibration["law"]
    yield (
        f"run.lease_minutes={short(minutes)}: a number of at least 0.05",
        not _number(minutes) or minutes < 0.05,
    )
    yield (
        f"calibration.law={short(law)}: give a text",
        not isinstance(law, str),
    )
    for part in ("prior", "classifier"):
        weights = settings[part]["weights"]
        yield (
            f"{part}.weights={short(weights)}: give a name, a file or a hub id",
            not isinstance(weights, str),
        )


def _whole(value, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and math.isfinite(value)
