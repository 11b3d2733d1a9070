"""Where in the tree of settings a word of the command line belongs.

`--posterior.samples=8` is a place; `--views=24` is a setting of the one thing that has
it: the operator, the reader, the recipe or the augmentation.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from klip_jax.recipe import Recipe
from klip_jax.rooms import resolve
from klip_jax.run.overrides import literal

_OPEN = "scan.operator", "data", "posterior", "calibration", "detectors", "train"
"""Parts that take names which are not there yet: who builds them knows them all."""


def placed(settings: dict[str, Any], more: Mapping[str, str]) -> dict[str, Any]:
    """Set what `more` names: a place in the tree, or a setting of scanner or reader.

    Args:
      settings: the tree, which is changed.
      more: {name or place: text}.

    Raises:
      ValueError: if there is no such setting, or several.
    """
    train = settings["train"]
    scan, data = settings["scan"], settings["data"]
    places: dict[tuple[str, ...], list[str]] = {}
    if scan is not None:
        known = _parameters("operators", scan["operator"]["name"])
        places["scan", "operator"] = known[1:]  # the first is the image's shape
    reader: tuple[str, ...] = ("data",)
    if train:
        reader, data = ("train", "data", "data"), train["data"]["data"]
    while "name" in data.get("data", ()):  # others stand around the reader itself
        reader, data = (*reader, "data"), data["data"]
    if "name" in data:
        places[reader] = _parameters("data", data["name"])
    if train:
        places["train", "recipe"] = list(Recipe._fields)
        places["train", "augment"] = _parameters("", "klip_jax.data.augment:Augment")
    for name, text in more.items():
        value = _value(text)
        if "." in name:
            first, rest = name.split(".")[0], tuple(name.split(".")[1:])
            start = {"operator": ("scan", "operator"), "reader": reader}.get(first)
            put(settings, (*start, *rest) if start else (first, *rest), value)
            continue
        homes = [place for place, known in places.items() if name in known]
        if len(homes) != 1:
            raise ValueError(_which(name, homes, places, settings))
        put(settings, (*homes[0], name), value)
    if train and not isinstance(train["test"]["data"], str):
        _share_reader(train)
    if scan is not None:
        _spell_like_defaults(scan["operator"])
    return settings


def _which(name, homes, places, settings) -> str:
    if homes:
        words = " or ".join(f"--{'.'.join(place)}.{name}" for place in homes)
        return f"--{name}: of what? say {words}"
    known = "; ".join(
        f"{_called(settings, place)} has {', '.join(names) or 'none'}"
        for place, names in places.items()
    )
    return (
        f"no setting --{name}: {known}; others are named by their place, as in "
        "--posterior.samples=8"
    )


def _called(settings, place) -> str:
    part: Any = settings
    for name in place:
        part = part[name]
    return part.get("name", place[-1])


def put(settings, place, value) -> None:
    """Set a value at its place in the tree."""
    *parts, last = place
    target: Any = settings
    for i, name in enumerate(parts):
        if not isinstance(target, dict) or (
            name not in target and not _open(parts[:i])
        ):
            raise ValueError(f"no setting {'.'.join(place)}; see klip detect --help")
        target = target.setdefault(name, {})
    if not isinstance(target, dict) or (last not in target and not _open(parts)):
        raise ValueError(f"no setting {'.'.join(place)}; see klip detect --help")
    target[last] = value


def _open(parts) -> bool:
    where = ".".join(parts)
    return any(where == part or where.startswith(f"{part}.") for part in _OPEN)


def _parameters(room: str, name: str) -> list[str]:
    return list(inspect.signature(resolve(room, name)).parameters)


def _spell_like_defaults(operator: dict[str, Any]) -> None:
    """Make a whole number a float where one is meant: a law is told by its spelling."""
    target = resolve("operators", operator["name"])
    for name, parameter in inspect.signature(target).parameters.items():
        wants = parameter.annotation in (float, "float")
        wants = wants or isinstance(parameter.default, float)
        if wants and type(operator.get(name)) is int:
            operator[name] = float(operator[name])


def _share_reader(train) -> None:
    """Let the held-out images be read as those to train on, where they are one set."""
    own, held = (train[part]["data"] for part in ("data", "test"))
    while "name" in own.get("data", ()) and "name" in held.get("data", ()):
        own, held = own["data"], held["data"]
    if all(own.get(name) == held.get(name) for name in ("name", "file", "folder")):
        train["test"]["data"] = train["data"]["data"]


def _value(text: str) -> Any:
    """Return a literal, or the text itself where it is none."""
    try:
        return literal(text)
    except ValueError:
        if text.strip()[:1] in ("{", "(", "[") or text.strip().startswith("dict("):
            raise
        return text
