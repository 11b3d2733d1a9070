"""Gaussian filters of differences, before they are squared, and of maps, after it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def smooth(images: Array, scale: float) -> Array:
    """Filter [..., H, W, C] with a Gaussian of `scale` pixels; 0 changes nothing.

    A coherent map is a score test: pixel by pixel it asks for any change, filtered it
    asks for changes of about this size that go one way. The sum of a filtered map is
    the part of the coherent KL in those spatial frequencies.

    Raises:
      ValueError: if scale is negative.
    """
    return _filtered(
        "ih,jw,...hwc->...ijc", images, images.shape[-3:-1], scale, "scale"
    )


def pool(maps: Array, width: float) -> Array:
    """Share what each pixel of [..., H, W] holds among its neighbours; the sum stays.

    Along each axis m'_i = sum_h m_h G(i - h) / sum_j G(j - h), G a Gaussian of standard
    deviation `width`, pixels; 0 changes nothing. Unlike `smooth`, which asks whether
    neighbours change one way, it asks how much they change at all.

    Raises:
      ValueError: if width is negative.
    """
    # Transposed: what a pixel gives away sums to 1, not what it receives.
    return _filtered("hi,wj,...hw->...ij", maps, maps.shape[-2:], width, "pooling")


def white_noise_passed(scale: float) -> float:
    """Return the share of white noise's power that `smooth` lets pass, in (0, 1].

    1 / (4 pi scale^2) for a scale of a pixel and more, away from the image's edges.
    """
    if scale == 0:
        return 1.0
    side = 2 * math.ceil(6 * scale) + 1
    return float((_gaussian_matrix(side, scale)[side // 2] ** 2).sum() ** 2)


def _filtered(spec, values, sides, width, name):
    if width < 0:
        raise ValueError(f"{name}={width}: a filter's width in pixels is >= 0")
    if width == 0:
        return values
    matrices = (jnp.asarray(_gaussian_matrix(n, width), values.dtype) for n in sides)
    precise = jax.lax.Precision.HIGHEST
    return jnp.einsum(spec, *matrices, values, precision=precise)


def _gaussian_matrix(side, scale):
    distance = np.arange(side)[:, None] - np.arange(side)
    weights = np.exp(-0.5 * (distance / scale) ** 2)
    return weights / weights.sum(1, keepdims=True)
