"""MSMA: the lengths of the scores of many noise levels, and what lengths are usual.

    f_i = sigma_i |score(x, sigma_i)| = |D(x, sigma_i) - x| / sigma_i,

at the image itself, without noise added; |.| over the image or over each block of
pixels. Features of in-distribution images are fitted by a Gaussian, and the score is
the Mahalanobis distance or the negative log-likelihood of an image's or a block's.

Departures: a Gaussian, where the paper takes a mixture, a flow or nearest neighbours
for whole images and Spatial-MSMA a conditional flow for patches: it is the one of them
that some tens of images can fit. The prior is a denoiser of any kind, levels are
free; the paper has 10, geometric from 0.01 to 1 for images in [0, 1].

Reference: Mahmood, Oliva and Styner 2021 (MSMA); the same 2024 (Spatial-MSMA), arXiv
2407.00148.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.kl import block_sum
from klip_jax.types import Denoiser

# A spread this small beside the feature itself is float32's, not the images'.
_ROUNDING = 1e-5
_ZERO = 1e-12


class Features(NamedTuple):
    """Lengths of the scores of one image, without unit.

    Attributes:
      image: [L].
      blocks: [H/b, W/b, L].
    """

    image: Array
    blocks: Array


class Fit(NamedTuple):
    """A Gaussian over features, or one for each position.

    Attributes:
      mean: [..., L].
      whitening: W [..., L, L] with W^T W = the inverse covariance.
      log_det: log det W [...].
    """

    mean: Array
    whitening: Array
    log_det: Array


def features(x: Array, prior: Denoiser, levels: Array, *, block: int = 4) -> Features:
    """Return |D(x, sigma_i) - x| / sigma_i of the image and of its blocks.

    Args:
      x: image [H, W, C], image units.
      prior: a denoiser.
      levels: noise levels [L], > 0, image units.
      block: side of a block, pixels; divides H and W.

    Returns:
      A `Features`.

    Raises:
      ValueError: if `block` does not divide the image.

    Reference: Mahmood et al. 2021, without the fitted law.
    """

    def at(sigma):
        return block_sum(jnp.sum((prior(x, sigma) - x) ** 2, -1), block) / sigma**2

    squares = jnp.moveaxis(jax.lax.map(at, levels), 0, -1)
    return Features(jnp.sqrt(squares.sum((0, 1))), jnp.sqrt(squares))


def network_calls(levels: int) -> int:
    """Return the network calls an image costs: one a level."""
    return levels


def fit(found: Array, *, ridge: float = 1e-3) -> Fit:
    """Fit one Gaussian to in-distribution features, pooled over all leading axes.

    Blocks of all positions are pooled, because anatomy is not aligned to the pixels.
    The covariance is diag(d) (R + ridge I) diag(d), R the correlation: lengths at
    neighbouring levels are nearly equal, and without the ridge the smallest of their
    differences would decide.

    Args:
      found: features [N, ..., L], at least 2.
      ridge: added to each correlation's diagonal, without unit, > 0.

    Returns:
      A `Fit` without leading axes.
    """
    found = found.reshape(-1, found.shape[-1])
    mean, std = found.mean(0), found.std(0, ddof=1)
    std = jnp.maximum(std, _ROUNDING * jnp.abs(found).max(0) + _ZERO)
    z = (found - mean) / std
    correlation = jnp.matmul(z.T, z, precision="highest") / (len(z) - 1)
    identity = jnp.eye(len(mean), dtype=found.dtype)
    factor = jnp.linalg.cholesky(correlation + ridge * identity)
    inverse = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    log_det = -jnp.sum(jnp.log(jnp.diag(factor)) + jnp.log(std))
    return Fit(mean, inverse / std, log_det)


def fit_positions(blocks: Array, *, ridge: float = 1e-3) -> Fit:
    """Fit one Gaussian to each position, for images that are aligned.

    Args:
      blocks: features [N, H/b, W/b, L].
      ridge: as in `fit`.

    Returns:
      A `Fit` with leading axes [H/b, W/b].
    """
    one = functools.partial(fit, ridge=ridge)
    return jax.vmap(jax.vmap(one, 1), 1)(blocks)


def mahalanobis(law: Fit, found: Array) -> Array:
    """Return (f - mean)^T covariance^-1 (f - mean) [...] of features [..., L]."""
    centred = found - law.mean
    white = jnp.einsum(
        "...ij,...j->...i", law.whitening, centred, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.sum(white**2, -1)


def negative_log_likelihood(law: Fit, found: Array) -> Array:
    """Return -log density in nats [...] of features [..., L].

    It orders as `mahalanobis` does, but for positions that have Gaussians of their own.
    """
    constant = 0.5 * found.shape[-1] * np.log(2 * np.pi)
    return 0.5 * mahalanobis(law, found) - law.log_det + constant
