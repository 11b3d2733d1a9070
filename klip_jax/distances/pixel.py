"""Distances of two images pixel by pixel, and of their local structure.

    l1      sum |a - b|                  l2      sqrt(sum (a - b)^2)
    psnr    10 log10(peak^2 / mean (a - b)^2)                               [dB]
    ssim    mean of (2 m_a m_b + c1)(2 v_ab + c2) /
            ((m_a^2 + m_b^2 + c1)(v_a + v_b + c2)),   c1 = .01^2, c2 = .03^2

m, v are means, variances and the covariance under a Gaussian window of 11 x 11 pixels
and deviation 1.5 that lies within the image, by channel. `psnr` and `ssim` are
similarities: bigger = more alike.

Departures: DiffGuard's release takes a peak of 255 for images in [-1, 1], so that its
thresholds are 20 log10(255 / 2) = 42.11 dB too high; `peak` says which it is.

Reference: Wang et al. 2004, eq. 13 and section III-C (SSIM).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from klip_jax.types import Image, Scalar

WINDOW = 11
"""Side of the window of SSIM, pixels."""
_DEVIATION, _C1, _C2 = 1.5, 0.01**2, 0.03**2
_FULL = 256
"""An image this large or larger is averaged down to about this size first."""


def l1(a: Image, b: Image) -> Float[Array, ""]:
    """Return sum |a - b|, image units."""
    return jnp.sum(jnp.abs(a - b))


def l2(a: Image, b: Image) -> Float[Array, ""]:
    """Return sqrt(sum (a - b)^2) of the whole image, image units."""
    return jnp.sqrt(jnp.sum((a - b) ** 2))


def psnr(a: Image, b: Image, *, peak: Scalar = 1.0) -> Float[Array, ""]:
    """Return the peak signal-to-noise ratio in dB, infinite for equal images.

    Args:
      a, b: images of any range.
      peak: the width of that range: 1 for [0, 1], 2 for [-1, 1].
    """
    return 20 * jnp.log10(peak) - 10 * jnp.log10(jnp.mean((a - b) ** 2))


def ssim(a: Image, b: Image) -> Float[Array, ""]:
    """Return the structural similarity of images in [0, 1], 1 for equal ones.

    Images of 384 pixels and more are first averaged over whole blocks of round(side /
    256) pixels, as the authors do.

    Raises:
      ValueError: if a side is shorter than the window.
    """
    side = min(a.shape[:2])
    factor = max(1, round(side / _FULL))
    a, b = _averaged(a, factor), _averaged(b, factor)
    if min(a.shape[:2]) < WINDOW:
        raise ValueError(f"ssim: images of {a.shape} are smaller than its {WINDOW}")
    mean_a, mean_b = _windowed(a), _windowed(b)
    var_a = _windowed(a * a) - mean_a**2
    var_b = _windowed(b * b) - mean_b**2
    both = _windowed(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return jnp.mean(light * (2 * both + _C2) / (var_a + var_b + _C2))


def _windowed(x):
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _DEVIATION**2))
    weights = jnp.asarray(weights / weights.sum(), x.dtype)
    for axis in (0, 1):
        x = _slid(x, weights, axis)
    return x


def _slid(x, weights, axis):
    """Correlate one axis of [H, W, C] with weights, where they lie within it."""
    count = x.shape[axis] - len(weights) + 1
    parts = (
        w * jax.lax.slice_in_dim(x, i, i + count, axis=axis)
        for i, w in enumerate(weights)
    )
    return sum(parts)


def _averaged(x, factor):
    rows, columns = (n // factor for n in x.shape[:2])
    x = x[: rows * factor, : columns * factor]
    return x.reshape(rows, factor, columns, factor, -1).mean((1, 3))
