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
from klip_jax.run.parts import with_weights
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


_MOST = 1024  # images that a fit is tried on


class Shapes(NamedTuple):
    """What a run looks at, each (H, W, C).

    Attributes:
      picture: of the images, or of the posterior's mean.
      prior: of what the prior denoises; another one where a detector takes pictures to
        it, by its settings `side` or `autoencoder` say.
    """

    picture: tuple[int, ...]
    prior: tuple[int, ...]


class Rehearsal(NamedTuple):
    """What a detector will do.

    Attributes:
      looked: the shapes of what it looks at, of one image.
      about: what config.json tells of it.
    """

    looked: Any
    about: dict[str, Any]


def build_detector(name: str, settings: Mapping[str, Any]) -> Detector:
    """Build a detector of the config; weights of its parts are loaded.

    Raises:
      FileNotFoundError: if there are no such weights.
      ValueError: if it is unknown, a setting is wrong, or it is no detector.
    """
    where = f"detectors.{name}"
    settings = with_weights(settings, where)
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
    shapes: Shapes,
    there: Mapping[str, bool],
    *,
    fitted_on: int,
) -> Rehearsal:
    """Trace all that a detector will do; nothing is computed.

    Args:
      name: its name in the config.
      of: the name of its class there.
      scene, detector: what is run.
      shapes: of pictures and prior.
      there: of `what_is_there`.
      fitted_on: images that it will be fitted on, if it fits.

    Raises:
      ValueError: if it needs what is not there, shows the prior images of another size,
        or cannot be traced or fitted.
    """
    where = f"detectors.{name}: {of}"
    for need in detector.needs:
        if need not in there:
            raise ValueError(
                f"{where} needs {need!r}, which is not one of {sorted(there)}"
            )
        if not there[need]:
            raise ValueError(
                f"{where} needs {need!r}, but {_REMEDIES[need]}, or leave this "
                "detector out"
            )
    one = functools.partial(_one_look, shape=shapes.picture, eligible=there["eligible"])
    try:
        check_shapes(scene, detector, shapes)
        looked = jax.eval_shape(one, scene, detector)
        fitted = _fitted(detector, looked, fitted_on)
        detection, extras = jax.eval_shape(look.judge, fitted, looked)
    except Exception as error:
        # It may be anybody's code, and fail in any way.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{where}: {lines[0]}") from error
    if detection.score.shape != ():
        raise ValueError(f"{where}: the score of an image is {detection.score.shape}")
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


def check_shapes(scene: Scene, detector: Detector, shapes: Shapes) -> None:
    """Check that what a detector shows the prior is of the prior's size.

    One that does not call the prior may look at pictures of any size.

    Raises:
      ValueError: if it is not.
    """
    if look.network_calls(scene, detector) == 0:
        return
    takes = getattr(detector, "prior_shape", None)
    shown = shapes.picture if takes is None else tuple(takes(shapes.picture))
    if shown != shapes.prior:
        remedy = "data or prior.weights that fit"
        if takes is not None:
            remedy += ", or its side (of the prior's images) and autoencoder (of a "
            remedy += "prior of latents)"
        raise ValueError(
            f"of pictures of {shapes.picture} it shows the prior {shown}, which is "
            f"for {shapes.prior}; give {remedy}"
        )


def _fitted(detector, looked, count):
    """Fit to `count` images, or to many, of invented numbers."""
    if not detector.fits:
        return detector
    count = min(count, _MOST)
    try:
        return detector.fit(_invented(looked, count))
    except ValueError as error:
        raise ValueError(
            f"cannot be fitted to {count} images ({str(error).strip()}); raise "
            "calibration.draws or name more calibration.healthy, half of which it gets"
        ) from None


def _invented(looked, count):
    """Return numbers of the shape of what is looked at, to try a fit on."""
    rng = np.random.default_rng(0)

    def some(leaf):
        values = rng.uniform(0.5, 1.5, (count, *leaf.shape))
        return jnp.asarray(values).astype(leaf.dtype)

    return jax.tree.map(some, looked)
