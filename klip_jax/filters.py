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
    if scale < 0:
        raise ValueError(f"scale={scale}: a filter's width in pixels is >= 0")
    if scale == 0:
        return images
    rows, columns = (
        jnp.asarray(_gaussian_matrix(side, scale), images.dtype)
        for side in images.shape[-3:-1]
    )
    precise = jax.lax.Precision.HIGHEST
    return jnp.einsum("ih,jw,...hwc->...ijc", rows, columns, images, precision=precise)


def pool(maps: Array, width: float) -> Array:
    """Share what each pixel of [..., H, W] holds among its neighbours; the sum stays.

    By a Gaussian of `width` pixels whose part inside the image is scaled to 1; 0
    changes nothing. Unlike `smooth`, which asks whether neighbours change one way, it
    asks how much they change at all.

    Raises:
      ValueError: if width is negative.
    """
    if width < 0:
        raise ValueError(f"pooling={width}: a filter's width in pixels is >= 0")
    if width == 0:
        return maps
    rows, columns = (
        jnp.asarray(_gaussian_matrix(side, width), maps.dtype)
        for side in maps.shape[-2:]
    )
    precise = jax.lax.Precision.HIGHEST
    return jnp.einsum("hi,wj,...hw->...ij", rows, columns, maps, precision=precise)


def white_noise_passed(scale: float) -> float:
    """Return the share of white noise's power that `smooth` lets pass, in (0, 1].

    1 / (4 pi scale^2) for a scale of a pixel and more, away from the image's edges.
    """
    if scale == 0:
        return 1.0
    side = 2 * math.ceil(6 * scale) + 1
    return float((_gaussian_matrix(side, scale)[side // 2] ** 2).sum() ** 2)


def _gaussian_matrix(side, scale):
    distance = np.arange(side)[:, None] - np.arange(side)
    weights = np.exp(-0.5 * (distance / scale) ** 2)
    return weights / weights.sum(1, keepdims=True)
