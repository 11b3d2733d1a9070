"""The variance-preserving state of the published samplers, and back:

    x_vp = alpha (x - c) + c,    alpha = 1 / sqrt(1 + (w sigma)^2),

where a network's own range is [low, 1], w = 1 - low is its width in image units and c
= -low / w its zero. For images in [-1, 1] w = 2 and c = 1/2; latents have low = 0.

Reference: docs/theory.md, sections 1 and 15.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax.types import Image, Scalar


def alpha(sigma: Scalar, *, low: float = -1.0) -> Float[Array, ""]:
    """Return alpha at a noise level, image units."""
    return 1 / jnp.sqrt(1 + ((1 - low) * sigma) ** 2)


def preserving(x: Image, sigma: Scalar, *, low: float = -1.0) -> Image:
    """Return the variance-preserving state of `x`, image units."""
    centre = -low / (1 - low)
    return alpha(sigma, low=low) * (x - centre) + centre


def exploding(x: Image, sigma: Scalar, *, low: float = -1.0) -> Image:
    """Return the state whose variance-preserving one is `x`, image units."""
    centre = -low / (1 - low)
    return (x - centre) / alpha(sigma, low=low) + centre
