"""A detector is built, and traced through a whole run, before anything is computed."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax import config
from klip_jax.run import look
from klip_jax.run.inputs import Batch, Inputs
from klip_jax.run.look import Scene
from klip_jax.types import Detector

_PARTS = "needs", "fits", "look", "judge", "fit", "extras", "network_calls"
_IMAGES = "this run looks at images themselves: set config.scan"
_REMEDIES = {
    "scan": _IMAGES,
    "posterior": _IMAGES,
    "image": "this run looks at measurements: --config.scan=None",
    "classifier": "none is given: set config.classifier",
    "eligible": "the data do not tell where anomalies could be",
}


class Rehearsal(NamedTuple):
    """What a detector will do.

    Attributes:
      looked: the shapes of what it looks at, of one image.
      about: what config.json tells of it.
    """

    looked: Any
    about: dict[str, Any]


def build_detector(name: str, settings: Mapping[str, Any]) -> Detector:
    """Build a detector of the config.

    Raises:
      ValueError: if it is unknown, a setting is wrong, or it is no detector.
    """
    where = f"detectors.{name}"
    try:
        detector = config.build("detectors", settings)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    lacking = [part for part in _PARTS if not hasattr(detector, part)]
    if lacking:
        raise ValueError(
            f"{where}: {settings['name']} is no detector, it lacks {lacking}; inherit "
            "from klip_jax.detectors.base.Detector"
        )
    if getattr(type(detector), "_flax_dataclass", False):
        # To jax two of these with the same fields are one, and so are their programs.
        raise ValueError(
            f"{where}: {settings['name']} is a dataclass of flax.struct; make it one "
            "of klip_jax.struct, which is spelled the same"
        )
    numbers = bool | int | float | np.ndarray | np.generic | jax.Array
    if not all(isinstance(leaf, numbers) for leaf in jax.tree.leaves(detector)):
        raise ValueError(
            f"{where}: {settings['name']} is not made of arrays and numbers; make it a "
            "klip_jax.struct.dataclass"
        )
    return detector


def what_is_there(scene: Scene, inputs: Inputs) -> dict[str, bool]:
    """Return which fields of `types.Given` this run has, and "picture"."""
    first, scanner = inputs.read(np.arange(1)), scene.operator is not None
    return {
        "prior": True,
        "picture": True,
        "scan": scanner,
        "posterior": scanner,
        "image": not scanner,
        "classifier": scene.classifier is not None,
        "eligible": first.eligible is not None,
    }


def rehearse(
    name: str,
    of: str,
    scene: Scene,
    detector: Detector,
    shape: tuple[int, ...],
    there: Mapping[str, bool],
) -> Rehearsal:
    """Trace all that a detector will do; nothing is computed.

    Args:
      name: its name in the config.
      of: the name of its class there.
      scene, detector: what is run.
      shape: (H, W, C).
      there: of `what_is_there`.

    Raises:
      ValueError: if it needs what is not there, or cannot be traced.
    """
    for need in detector.needs:
        if need not in there:
            raise ValueError(
                f"detectors.{name}: {of} needs {need!r}, which is not one of "
                f"{sorted(there)}"
            )
        if not there[need]:
            raise ValueError(
                f"detectors.{name}: {of} needs {need!r}, but {_REMEDIES[need]}, or "
                "leave this detector out"
            )
    one = functools.partial(_one_look, shape=shape, eligible=there["eligible"])
    try:
        looked = jax.eval_shape(one, scene, detector)
        fitted = detector.fit(_invented(looked)) if detector.fits else detector
        detection, extras = jax.eval_shape(look.judge, fitted, looked)
    except Exception as error:
        # It may be anybody's code, and fail in any way.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"detectors.{name}: {of}: {lines[0]}") from error
    if detection.score.shape != ():
        raise ValueError(
            f"detectors.{name}: {of}: the score of an image is {detection.score.shape}"
        )
    about = {
        "class": of,
        "about": (inspect.getdoc(type(detector)) or "").partition("\n")[0].rstrip("."),
        "control": bool(getattr(detector, "control", False)),
        "unit": str(getattr(detector, "unit", "")),
        "network_calls": look.network_calls(scene, detector),
        "classifier_calls": int(getattr(detector, "classifier_calls", 0)),
        "has_map": detection.heatmap is not None,
        "extras": {key: list(array.shape) for key, array in extras.items()},
        "block": int(getattr(detector, "block", 4)),
        "curves": list(getattr(detector, "curves", ())),
        "fits": bool(detector.fits),
    }
    return Rehearsal(looked, about)


def _one_look(scene: Scene, detector: Detector, *, shape, eligible):
    key, posterior = jax.random.key(0), None
    where = jnp.ones(shape[:2], bool) if eligible else None
    batch = Batch(key, jnp.zeros(shape), None, where)
    if scene.operator is not None:
        y = look.measure(scene, key, batch.image)
        posterior, _ = look.sample(scene, key, y)
        batch = batch._replace(image=None, y=y)
    return look.look(scene, detector, jnp.zeros(2, jnp.uint32), batch, posterior)


def _invented(looked):
    """Return numbers of the shape of what is looked at, to try a fit on."""
    rng = np.random.default_rng(0)

    def some(leaf):
        values = rng.uniform(0.5, 1.5, (8, *leaf.shape))
        return jnp.asarray(values).astype(leaf.dtype)

    return jax.tree.map(some, looked)
