"""How different two images are, by the names that a config gives: see `distances`.

Reference: docs/theory.md, (15.16).
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax.distances import deep, logits, pixel
from klip_jax.types import Image

LOGITS = {
    "logits.l1": logits.l1,
    "logits.l2": logits.l2,
    "logits.normalised_l1": logits.normalised_l1,
}
FEATURES = {"deep.maps": deep.maps, "deep.cosine": deep.cosine, "deep.l1": deep.l1}
PIXELS = {
    "pixel.l1": pixel.l1,
    "pixel.l2": pixel.l2,
    "pixel.ssim": lambda a, b: 1 - pixel.ssim(a, b),
}
DISTANCES = (*LOGITS, *FEATURES, *PIXELS, "perceptual")


def classifier_calls(name: str) -> int:
    """Return how often `difference` calls the classifier."""
    return 2 * (name in LOGITS or name in FEATURES)


def difference(
    name: str, a: Image, b: Image, *, classifier: Any, perceptual: Any = None
) -> Float[Array, ""]:
    """Return a distance of two images, clipped to [0, 1].

    Args:
      name: one of `DISTANCES`.
      a, b: images.
      classifier: see `classifiers.base.Classifier`.
      perceptual: of `distances.perceptual`, for the distance of that name.
    """
    a, b = (jnp.clip(x, 0, 1) for x in (a, b))
    if name in LOGITS:
        both = (classifier.of_features(classifier.features(x)) for x in (a, b))
        return LOGITS[name](*both)
    if name in FEATURES:
        return FEATURES[name](classifier, a, b)
    if name in PIXELS:
        return PIXELS[name](a, b)
    return perceptual(a, b)
