"""From names and numbers to objects: the file system is the registry.

`dict(name="ct.ParallelBeam", views=24)` in the room `operators` is
`klip_jax.operators.ct.ParallelBeam(..., views=24)`, and `dict(name="mine.scan:Slab")`
is `Slab` of your own module `mine/scan.py`. A setting that is such a dict itself is
built first, by the room of its field (`ROOMS`).

Settings are checked against the signature of what they are for, before it is called:
unknown and missing names, and values of another type than the default's.
"""

import importlib
import inspect
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import klip_jax

ROOMS = {
    "classifier": "classifiers",
    "data": "data",
    "denoiser": "priors",
    "detector": "detectors",
    "detectors": "detectors",
    "guidance": "guidance",
    "net": "nets",
    "operator": "operators",
    "posterior": "priors",
    "prior": "priors",
    "sampler": "samplers",
}
"""Where what a field holds is looked for."""
_ALSO = {"data": ("phantoms",)}
_PLAIN = {
    bool: (bool, "True or False"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    tuple: ((tuple, list), "a tuple"),
}
PACKAGE = pathlib.Path(klip_jax.__file__).parent


def modules(room: str) -> dict[str, str]:
    """Return {short name: full name} of what a room offers; bases are left out."""
    found = {}
    for folder in (*_ALSO.get(room, ()), room):
        for path in sorted((PACKAGE / folder).glob("*.py")):
            if path.stem != "__init__" and not (path.stem + "_").startswith("base_"):
                found[path.stem] = f"klip_jax.{folder}.{path.stem}"
    return dict(sorted(found.items()))


def module(room: str, name: str) -> ModuleType:
    """Import a module of a room.

    Raises:
      ValueError: if there is no such module, listing what there is.
    """
    known = modules(room)
    if name not in known:
        raise ValueError(
            f"{room}: no module {short(name)}; there are {list(known)}, and your own "
            "as 'package.module:Name'"
        )
    return importlib.import_module(known[name])


def resolve(room: str, name: str) -> Any:
    """Return what `name` means in a room.

    Args:
      room: a folder of the package, such as "operators".
      name: "module.Public" of the room, or "package.module:Public" of anything that can
        be imported.

    Raises:
      ValueError: if there is no such module or name, listing what there is.
    """
    if not isinstance(name, str):
        raise ValueError(f"{room}: name={short(name)}: give a text, 'module.Public'")
    own = ":" in name
    module_name, _, attribute = name.partition(":" if own else ".")
    found = _imported(room, module_name) if own else module(room, module_name)
    if attribute.startswith("_") or not hasattr(found, attribute):
        raise ValueError(
            f"{room}: {short(module_name)} has no {short(attribute)} (in "
            f"{short(name)}); it has {public_names(found)}"
        )
    return getattr(found, attribute)


def public_names(found: ModuleType) -> list[str]:
    """Return the classes and functions that a module defines itself."""
    return sorted(
        name
        for name, value in vars(found).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", "") == found.__name__
    )


def build(room: str, settings: Mapping[str, Any], *args) -> Any:
    """Call what settings["name"] means in `room` with `args` and the other settings.

    Raises:
      ValueError: if the name is unknown, or a setting is unknown, missing, of another
        type, or refused by what is built.
    """
    if not isinstance(settings, Mapping) or "name" not in settings:
        raise ValueError(f"{room}: {short(settings)}: give dict(name=..., ...)")
    target = resolve(room, settings["name"])
    if not callable(target):
        raise ValueError(f"{room}: {short(settings['name'])} cannot be built")
    given = {
        key: _built(room, key, value, args)
        for key, value in settings.items()
        if key != "name"
    }
    return construct(target, f"{room}: {settings['name']}", given, *args)


def construct(
    target: Callable[..., Any], where: str, settings: Mapping[str, Any], *args
) -> Any:
    """Return target(*args, **settings), its settings checked first.

    Args:
      target: a class or a function.
      where: it stands, for messages.
      settings: by the names of its parameters; lists are taken as tuples.
      args: what comes before them.

    Raises:
      ValueError: in one sentence.
    """
    parameters = list(inspect.signature(target).parameters.values())[len(args) :]
    known = {p.name: p for p in parameters if p.kind in (p.KEYWORD_ONLY, _BOTH)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name, value in settings.items():
        if name in known:
            _check_type(where, known[name], value)
        elif not takes_any:
            raise ValueError(f"{where}: no setting {name!r}; there are {list(known)}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in settings:
            raise ValueError(f"{where}: the setting {name!r} is missing")
    try:
        return target(*args, **{k: _hashable(v) for k, v in settings.items()})
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from None


def fill(kind: type, settings: Mapping[str, Any], where: str) -> Any:
    """Return the NamedTuple or dataclass `kind` of `settings`, defaults kept."""
    return construct(kind, where, settings)


def check_fields(found: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise a ValueError naming the first field that is unknown or missing."""
    found, known = list(found), list(known)
    for name in found:
        if name not in known:
            raise ValueError(
                f"{where}: no setting {short(name)}; there are {sorted(known)}"
            )
    for name in known:
        if name not in found:
            raise ValueError(f"{where}: the setting {name!r} is missing")


def short(value: Any) -> str:
    """Return the repr of a value, of at most 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def snake(name: str) -> str:
    """Return the name of a class as that of a setting: BlockMSMA is block_msma.

    A last capital is no word of its own: ViM is vim.
    """
    starts = r"(?<=[a-z])(?=[A-Z].)|(?<=[A-Z])(?=[A-Z][a-z])"
    return re.sub(starts, "_", name).lower()


def plain(settings: Any) -> Any:
    """Return settings as JSON will give them back: lists for tuples."""
    if isinstance(settings, Mapping):
        return {str(k): plain(v) for k, v in settings.items()}
    if isinstance(settings, tuple | list):
        return [plain(v) for v in settings]
    if settings is None or isinstance(settings, bool | int | float | str):
        return settings
    raise ValueError(
        f"config: {short(settings)} is neither number, text, tuple nor dict"
    )


_BOTH = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _imported(room, name):
    try:
        return importlib.import_module(name)
    except Exception as error:
        # Somebody else's module may fail in any way while it is imported.
        raise ValueError(
            f"{room}: the module {short(name)} cannot be imported "
            f"({type(error).__name__}: {str(error)[:200]})"
        ) from None


def _built(room, key, value, args):
    """Build what a setting holds, where it is a dict with a name, or holds such."""
    nested = ROOMS.get(key)
    if nested is None:
        return value
    # An operator made of operators has one image shape.
    args = args if nested == room == "operators" else ()
    if isinstance(value, Mapping):
        if "name" in value:
            return build(nested, value, *args)
        return {k: _built(room, key, v, args) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_built(room, key, v, args) for v in value)
    return value


def _check_type(where, parameter, value):
    kind = parameter.annotation
    if value is None and (parameter.default is None or "None" in str(kind)):
        return
    if kind not in _PLAIN:
        kind = type(parameter.default)
        # Without the word "int" a default of 1 is a number like others.
        kind = float if kind is int else kind
    if kind not in _PLAIN:
        return
    types, words = _PLAIN[kind]
    right = isinstance(value, types) and (kind is bool or not isinstance(value, bool))
    if not right:
        raise ValueError(f"{where}: {parameter.name}={short(value)}: give {words}")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{where}: {parameter.name}={value}: give a number")


def _hashable(value):
    # JSON has lists only; static settings must be hashable.
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return tuple(map(_hashable, value))
    return value
