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
2407.00148; docs/theory.md, section 12.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.blocks import block_sum
from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_fit import fitted, spread
from klip_jax.detectors.base_map import MapDetector
from klip_jax.detectors.base_settings import check_positive
from klip_jax.posterior import at_null_label
from klip_jax.types import Denoiser, Detection, Given, Image, PRNGKey, Scalar

LEVELS = tuple(float(s) for s in np.geomspace(0.01, 1.0, 10))
"""Noise levels of the paper, image units."""


class Fit(NamedTuple):
    """A Gaussian over L features, or one for each position.

    Attributes:
      mean: of the features.
      whitening: W with W^T W = the inverse covariance.
      log_det: log det W.
    """

    mean: Float[Array, "*grid level_count"]
    whitening: Float[Array, "*grid level_count level_count"]
    log_det: Float[Array, "*grid"]


@struct.dataclass
class MSMA(Detector):
    """The Mahalanobis distance of the image's lengths; it has no map.

    Attributes:
      levels: noise levels, > 0, image units.
      ridge: see `fit`.
      law: of the lengths, filled by `fit`.
    """

    levels: tuple[Scalar, ...] = LEVELS
    ridge: Scalar = 1e-3
    law: Fit | None = None

    fits = True

    def __post_init__(self):
        check_positive(levels=self.levels, ridge=self.ridge)

    @property
    def network_calls(self) -> int:
        return len(self.levels)

    def look(self, key: PRNGKey, given: Given) -> Float[Array, " level_count"]:
        """Return the lengths of the image's scores, without unit."""
        return jnp.sqrt(_squared_scores(given, self.levels).sum((1, 2)))

    def fit(self, looked: Float[Array, "n level_count"]) -> "MSMA":
        return dataclasses.replace(self, law=fit(looked, ridge=self.ridge))

    def judge(self, looked: Float[Array, " level_count"]) -> Detection:
        score = mahalanobis(fitted(self, self.law), looked)
        return Detection(score, jnp.full((), jnp.nan))


@struct.dataclass
class BlockMSMA(MapDetector):
    """The Mahalanobis distance of each block's lengths; the score is by its largest.

    Attributes:
      levels: noise levels, > 0, image units.
      ridge: see `fit`.
      per_position: whether each position has a Gaussian of its own, for images that are
        aligned, and the negative log-likelihood for the distance, which positions do
        not share.
      law: of the lengths, filled by `fit`.
    """

    levels: tuple[Scalar, ...] = LEVELS
    ridge: Scalar = 1e-3
    per_position: bool = struct.field(pytree_node=False, default=False)
    law: Fit | None = None

    fits = True

    def __post_init__(self):
        super().__post_init__()
        check_positive(levels=self.levels, ridge=self.ridge)

    @property
    def network_calls(self) -> int:
        return len(self.levels)

    def look(self, key: PRNGKey, given: Given) -> Float[Array, "hb wb level_count"]:
        """Return the lengths of the scores of each block, without unit."""
        squares = block_sum(_squared_scores(given, self.levels), self.block)
        return jnp.sqrt(jnp.moveaxis(squares, 0, -1))

    def fit(self, looked: Float[Array, "n hb wb level_count"]) -> "BlockMSMA":
        of = fit_positions if self.per_position else fit
        return dataclasses.replace(self, law=of(looked, ridge=self.ridge))

    def judge(self, looked: Float[Array, "hb wb level_count"]) -> Detection:
        of = negative_log_likelihood if self.per_position else mahalanobis
        block_map = of(fitted(self, self.law), looked)
        return self.of_map(jnp.kron(block_map, jnp.ones((self.block, self.block))))


def squared_scores(
    x: Image, prior: Denoiser, levels: Float[Array, " level_count"]
) -> Float[Array, "level_count h w"]:
    """Return |D(x, sigma_i) - x|^2 / sigma_i^2 of each pixel, summed over channels.

    Args:
      x: image, image units.
      prior: a denoiser.
      levels: noise levels, > 0, image units.

    Reference: Mahmood et al. 2021, before the sum over pixels.
    """

    def at(sigma):
        return jnp.sum((prior(x, sigma) - x) ** 2, -1) / sigma**2

    return jax.lax.map(at, levels)


def fit(features: Float[Array, "n *grid level_count"], *, ridge: Scalar = 1e-3) -> Fit:
    """Fit one Gaussian to in-distribution features, pooled over all leading axes.

    Blocks of all positions are pooled, because anatomy is not aligned to the pixels.
    The covariance is diag(d) (R + ridge I) diag(d), R the correlation: lengths at
    neighbouring levels are nearly equal, and without the ridge the smallest of their
    differences would decide.

    Args:
      features: of N images; N times the blocks is at least 2.
      ridge: added to each correlation's diagonal, without unit, > 0.

    Returns:
      A `Fit` without leading axes.

    Raises:
      ValueError: if there are fewer than 2.
    """
    features = jnp.asarray(features).reshape(-1, features.shape[-1])
    mean, std = features.mean(0), spread(features)
    z = (features - mean) / std
    correlation = jnp.matmul(z.T, z, precision="highest") / (len(z) - 1)
    identity = jnp.eye(len(mean), dtype=features.dtype)
    factor = jnp.linalg.cholesky(correlation + ridge * identity)
    inverse = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    log_det = -jnp.sum(jnp.log(jnp.diag(factor)) + jnp.log(std))
    return Fit(mean, inverse / std, log_det)


def fit_positions(
    blocks: Float[Array, "n hb wb level_count"], *, ridge: Scalar = 1e-3
) -> Fit:
    """Fit one Gaussian to each position, for images that are aligned.

    Args:
      blocks: features of N >= 2 images.
      ridge: as in `fit`.

    Returns:
      A `Fit` with leading axes [H/b, W/b].
    """
    one = functools.partial(fit, ridge=ridge)
    return jax.vmap(jax.vmap(one, 1), 1)(jnp.asarray(blocks))


def mahalanobis(
    law: Fit, features: Float[Array, "*grid level_count"]
) -> Float[Array, "*grid"]:
    """Return (f - mean)^T covariance^-1 (f - mean) of features."""
    centred = features - law.mean
    white = jnp.einsum(
        "...ij,...j->...i", law.whitening, centred, precision=jax.lax.Precision.HIGHEST
    )
    return jnp.sum(white**2, -1)


def negative_log_likelihood(
    law: Fit, features: Float[Array, "*grid level_count"]
) -> Float[Array, "*grid"]:
    """Return -log density of features, nats.

    It orders as `mahalanobis` does, but for positions that have Gaussians of their own.
    """
    constant = 0.5 * features.shape[-1] * math.log(2 * math.pi)
    return 0.5 * mahalanobis(law, features) - law.log_det + constant


def _squared_scores(given, levels):
    prior = at_null_label(given.prior)
    return squared_scores(given.picture, prior, jnp.asarray(levels))
