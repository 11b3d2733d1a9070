"""From names and numbers to objects.

`dict(name="ct.ParallelBeam", views=24)` in the room `operators` is
`klip_jax.operators.ct.ParallelBeam(..., views=24)`. A setting that is such a dict
itself is built first, by the room of its field (`ROOMS`).
"""

from collections.abc import Mapping
from typing import Any

from klip_jax.rooms import resolve
from klip_jax.signatures import construct
from klip_jax.spelling import short

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


def build(room: str, settings: Any, *args) -> Any:
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
