"""The images that the settings name: those to look at, and the healthy ones."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from klip_jax import config
from klip_jax.data.base import ImageSet
from klip_jax.run import inputs as inputs_of
from klip_jax.run.inputs import Inputs
from klip_jax.run.provenance import tree_digest
from klip_jax.spelling import short


def image_sets(settings) -> dict[str, ImageSet]:
    """Build the images to look at, unless they were measured, and the healthy ones."""
    sets = {}
    if not settings["data"].get("measurements"):
        sets["data"] = _image_set("data", settings["data"])
    healthy = settings["calibration"]["healthy"]
    if healthy is not None:
        sets["calibration.healthy"] = _image_set("calibration.healthy", healthy)
    return sets


def _image_set(where, data) -> ImageSet:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}={short(data)}: give dict(name=..., ...)")
    chosen = {k: v for k, v in data.items() if k != "measurements"}
    images = config.build("data", chosen)
    if not isinstance(images, ImageSet):
        raise ValueError(
            f"{where}: {data['name']} gives {type(images).__name__}, not an ImageSet"
        )
    inputs_of.check_ids(images.ids, where)
    return images


def read_inputs(settings, sets, scene, shape) -> tuple[Inputs, Inputs | None, dict]:
    """Return what is looked at, the healthy images, and the digests of both.

    Every image is read here once, so that a broken one is known before all others were
    computed.
    """
    seed, digests = settings["seed"], {}
    for where, images in sets.items():
        if tuple(images.shape) != shape:
            raise ValueError(
                f"{where}: the images are {tuple(images.shape)}, the prior is for "
                f"{shape}; fit them by data.fit (klip detect --resize, --pad, "
                "--channels), or give another prior"
            )
        sets[where] = inputs_of.checked(images, where)
        digests[where] = sets[where].digest()
    inputs = healthy = None
    if (images := sets.get("calibration.healthy")) is not None:
        if digests["calibration.healthy"] == digests.get("data"):
            raise ValueError(
                "calibration.healthy: these are the images that are tested; name others"
            )
        if len(images) < 4:
            raise ValueError(f"calibration.healthy: {len(images)} images; at least 4")
        # Noise of their own: an image to look at may have the name of one of these.
        names = tuple(f"healthy/{name}" for name in images.ids)
        healthy = inputs_of.of_images(dataclasses.replace(images, ids=names), seed)
    if "data" in sets:
        inputs = inputs_of.of_images(sets["data"], seed)
    elif scene.operator is None:
        raise ValueError("data.measurements: no scan.operator says what measured")
    else:
        y, ids = inputs_of.load_measurements(settings["data"], scene.operator)
        digests["measurements"] = tree_digest((y, np.array(ids)))
        inputs = inputs_of.of_measurements(y, ids, seed)
    words = {"data": "images", "calibration.healthy": "healthy images"}
    return inputs, healthy, {words.get(k, k): v for k, v in digests.items()}
