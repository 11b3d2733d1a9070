"""Gaussian filters of differences, before they are squared, and of maps, after it.

    G(d) = exp(-d^2 / (2 width^2)),   width in pixels; 0 changes nothing

Widths may be traced: the same program serves all of them.

Reference: docs/theory.md, section 7.
"""

import math

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax.types import Scalar


def smooth(
    images: Float[Array, "*n h w c"], filter_width: Scalar
) -> Float[Array, "*n h w c"]:
    """Filter [..., H, W, C] with a Gaussian; a width of 0 changes nothing.

    x'_i = sum_j G(i - j) x_j / sum_j G(i - j) along rows and columns. A coherent map is
    a score test: pixel by pixel it asks for any change, filtered it asks for changes of
    about this size that go one way. The sum of a filtered map is the part of the
    coherent KL in those spatial frequencies.

    Raises:
      ValueError: if the width is negative or infinite.
    """
    _check(filter_width=filter_width)
    rows, columns = _gaussians(images.shape[-3:-1], filter_width, images.dtype)
    filtered = jnp.einsum(
        "ih,jw,...hwc->...ijc", rows, columns, images, precision="highest"
    )
    return jnp.where(filter_width > 0, filtered, images)


def pool(maps: Float[Array, "*n h w"], pool_width: Scalar) -> Float[Array, "*n h w"]:
    """Share what each pixel of [..., H, W] holds among its neighbours; the sum stays.

    m'_i = sum_h m_h G(i - h) / sum_j G(j - h) along rows and columns; a width of 0
    changes nothing. Unlike `smooth`, which asks whether neighbours change one way, it
    asks how much they change at all.

    Raises:
      ValueError: if the width is negative or infinite.
    """
    _check(pool_width=pool_width)
    rows, columns = _gaussians(maps.shape[-2:], pool_width, maps.dtype)
    # Transposed: what a pixel gives away sums to 1, not what it receives.
    pooled = jnp.einsum("hi,wj,...hw->...ij", rows, columns, maps, precision="highest")
    return jnp.where(pool_width > 0, pooled, maps)


def white_noise_passed(filter_width: Scalar) -> Float[Array, ""]:
    """Return the share of white noise's power that `smooth` lets pass, in (0, 1].

    (sum_d G(d)^2 / (sum_d G(d))^2)^2 over all integers d: what holds away from the
    image's edges, 1 / (4 pi width^2) for a width of a pixel and more.
    """
    inverse = 1 / jnp.asarray(filter_width, float) ** 2
    return (_theta(inverse) / _theta(inverse / 2) ** 2) ** 2


def _theta(rate):
    """Sum exp(-rate d^2) over all integers d, to float64's precision.

    Poisson: sum_d exp(-r d^2) = sqrt(pi / r) sum_k exp(-(pi k)^2 / r), so that one of
    the two sums converges within four terms at any rate, infinite ones included.
    """
    terms = jnp.arange(1, 5) ** 2
    steep, flat = jnp.maximum(rate, jnp.pi), jnp.minimum(rate, jnp.pi)
    direct = 1 + 2 * jnp.exp(-steep * terms).sum()
    dual = 1 + 2 * jnp.exp(-(jnp.pi**2) / flat * terms).sum()
    return jnp.where(rate > jnp.pi, direct, jnp.sqrt(jnp.pi / flat) * dual)


def _gaussians(sides, width, dtype):
    """Return a matrix [n, n] for each side, its rows summing to 1."""
    width = jnp.where(width > 0, width, 1.0).astype(dtype)
    for n in sides:
        distance = (jnp.arange(n)[:, None] - jnp.arange(n)).astype(dtype)
        weights = jnp.exp(-0.5 * (distance / width) ** 2)
        yield weights / weights.sum(1, keepdims=True)


def _check(**widths: Scalar) -> None:
    for name, width in widths.items():
        if isinstance(width, int | float) and not 0 <= width < math.inf:
            raise ValueError(
                f"{name}={width}: a filter's width in pixels is >= 0 and finite"
            )
