"""Settings against the signature of what they are for, checked before it is called.

Unknown and missing names, and values of another type than the default's, are told in
one sentence.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from klip_jax.spelling import short

_PLAIN = {
    bool: (bool, "True or False"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    tuple: ((tuple, list), "a tuple"),
}


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


def check_fields(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise a ValueError naming the first field that is unknown or missing."""
    given, known = list(given), list(known)
    for name in given:
        if name not in known:
            raise ValueError(
                f"{where}: no setting {short(name)}; there are {sorted(known)}"
            )
    for name in known:
        if name not in given:
            raise ValueError(f"{where}: the setting {name!r} is missing")


_BOTH = inspect.Parameter.POSITIONAL_OR_KEYWORD


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
