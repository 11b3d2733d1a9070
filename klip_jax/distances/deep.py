"""Distances of two images in the features of the classifier that is asked anyway.

    map       d = sum_f (n(maps_a) - n(maps_b))_f^2 = 2 - 2 cos   at each position
    maps      mean of d over positions
    cosine    1 - cos(features_a, features_b)
    l1, l2    of the features

n(v) = v / (|v| + 1e-10) over channels, as in LPIPS, with equal weights: no further
network and no trained weights are needed, and where images differ is told too.

Reference: Zhang et al. 2018 (LPIPS), eq. 1 with w = 1.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax.classifiers.base import Classifier
from klip_jax.types import Image

_SMALL = 1e-10


def difference_map(classifier: Classifier, a: Image, b: Image) -> Float[Array, "m n"]:
    """Return the squared distance of directions at each position of the last maps.

    Args:
      classifier: see `classifiers.base`.
      a, b: images in [0, 1].

    Returns:
      [m, n] on the grid of `classifier.maps`, in [0, 4].
    """
    gap = _direction(classifier.maps(a)) - _direction(classifier.maps(b))
    return jnp.sum(gap**2, -1)


def maps(classifier: Classifier, a: Image, b: Image) -> Float[Array, ""]:
    """Return the mean of `difference_map`."""
    return jnp.mean(difference_map(classifier, a, b))


def cosine(classifier: Classifier, a: Image, b: Image) -> Float[Array, ""]:
    """Return 1 - cos of the angle between features, in [0, 2]."""
    one, other = (_direction(classifier.features(x)) for x in (a, b))
    # Not 1 - a . b, whose float32 is 0 for angles below 3e-4.
    return jnp.sum((one - other) ** 2) / 2


def l1(classifier: Classifier, a: Image, b: Image) -> Float[Array, ""]:
    """Return the l1 distance of the features."""
    return jnp.sum(jnp.abs(classifier.features(a) - classifier.features(b)))


def l2(classifier: Classifier, a: Image, b: Image) -> Float[Array, ""]:
    """Return the l2 distance of the features."""
    return jnp.linalg.norm(classifier.features(a) - classifier.features(b))


def _direction(x):
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + _SMALL)
