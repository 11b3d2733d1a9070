"""Densities that are fitted on the host and evaluated in JAX.

    log p(f) = log sum_k w_k N(z; m_k, (P_k P_k^T)^-1),   z = (f - mean) / std,

a mixture of Gaussians over standardised features z; a kernel density is one with a
component for each image that was fitted, all of one width.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from klip_jax import struct
from klip_jax.detectors.base_fit import ROUNDING, ZERO
from klip_jax.types import Scalar

COVARIANCES = ("full", "tied", "diag", "spherical")


@struct.dataclass
class Mixture:
    """K Gaussians over d standardised features.

    Sums over pixels are large beside how they vary, so the mean has two float32: one
    number, and what that leaves of it.

    Attributes:
      mean: of the features, the high and the low part.
      std: of the features, never 0.
      log_weights: log w_k.
      centres: m_k.
      factors: P_k.
    """

    mean: Float[Array, "2 d"]
    std: Float[Array, " d"]
    log_weights: Float[Array, " k"]
    centres: Float[Array, "k d"]
    factors: Float[Array, "k d d"]

    def log_prob(self, features: Float[Array, " d"]) -> Float[Array, ""]:
        """Return the log density of the standardised features, nats."""
        z = (features - self.mean[0] - self.mean[1]) / self.std
        white = jnp.einsum(
            "kd,kde->ke", z - self.centres, self.factors, precision="highest"
        )
        log_det = jnp.log(jnp.diagonal(self.factors, axis1=1, axis2=2)).sum(1)
        constant = 0.5 * math.log(2 * math.pi) * features.shape[-1]
        each = log_det - 0.5 * jnp.sum(white**2, 1) - constant
        return jax.nn.logsumexp(self.log_weights + each)


def kernels(features: Float[Any, "n d"], bandwidth: Scalar = 0.0) -> Mixture:
    """Fit a Gaussian kernel density to features of N >= 2 images.

    Args:
      features: of the images.
      bandwidth: of the kernel in standard deviations of the features; 0 takes
        Silverman's rule, (N (d + 2) / 4)^(-1 / (d + 4)).

    Raises:
      ValueError: if there are fewer than 2 images.

    Reference: Silverman 1986, eq. 4.14.
    """
    z, mean, std = _standardised(features)
    n, d = z.shape
    width = float(bandwidth) or (n * (d + 2) / 4) ** (-1 / (d + 4))
    factors = np.broadcast_to(np.eye(d) / width, (n, d, d))
    return _held(mean, std, np.full(n, -math.log(n)), z, factors)


def mixture(
    features: Float[Any, "n d"],
    *,
    components: Sequence[int] = (1, 2, 5),
    covariances: Sequence[str] = COVARIANCES,
    folds: int = 10,
    seed: int = 0,
) -> Mixture:
    """Fit a mixture of Gaussians to features of N images.

    Args:
      features: of the images.
      components: numbers of components to try.
      covariances: their shapes to try, of `COVARIANCES`.
      folds: of the cross-validated likelihood that chooses.
      seed: of the mixture's first guess.

    Raises:
      ValueError: if there are fewer images than `fewest`.
    """
    if len(features) < fewest(components, folds):
        raise ValueError(
            f"components={tuple(components)}, folds={folds}: {len(features)} images "
            f"are fewer than the {fewest(components, folds)} that they need; take "
            "fewer components and folds, or more images"
        )
    z, mean, std = _standardised(features)
    law = GaussianMixture(max_iter=200, random_state=seed)
    # Standardised again in each fold, so that what is held out has no say.
    scaled = Pipeline([("scale", StandardScaler()), ("law", law)])
    grid = dict(
        law__n_components=list(components), law__covariance_type=list(covariances)
    )
    best = GridSearchCV(scaled, grid, cv=folds).fit(z).best_estimator_["law"]
    log_weights = np.log(best.weights_)
    return _held(mean, std, log_weights, best.means_, _as_matrices(best))


def fewest(components: Sequence[int], folds: int) -> int:
    """Return how few images `mixture` takes.

    One a fold at least, and as many as components where the largest fold is left out.
    """
    counts = itertools.count(max(folds, max(components)))
    return next(n for n in counts if n - -(-n // folds) >= max(components))


def _standardised(features):
    features = np.asarray(features, np.float64)
    if len(features) < 2:
        raise ValueError(f"{len(features)} images: a density needs at least 2")
    mean = features.mean(0)
    std = np.maximum(features.std(0), ROUNDING * np.abs(features).max(0) + ZERO)
    return (features - mean) / std, mean, std


def _as_matrices(law):
    """Return the precision factors P_k of scikit-learn's mixture as [k, d, d]."""
    factors, (k, d) = law.precisions_cholesky_, law.means_.shape
    if law.covariance_type == "spherical":
        factors = factors[:, None] * np.ones(d)
    if law.covariance_type in ("spherical", "diag"):
        factors = factors[:, :, None] * np.eye(d)
    return np.broadcast_to(factors, (k, d, d))


def _held(mean, std, log_weights, centres, factors):
    high = np.float32(mean)
    parts = np.stack([high, np.float32(mean - high)])
    arrays = (parts, std, log_weights, centres, factors)
    return Mixture(*(jnp.asarray(a, jnp.float32) for a in arrays))
