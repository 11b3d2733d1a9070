"""How unusual a classifier's features f are; fitted to those of N images.

    KNN     |n(f) - n(f_(k))|^2,  n(f) = f / |f|, f_(k) the k-th nearest of the N
    ViM     alpha |R^T (f - u)| - log sum_j exp(l_j),   u = -W^+ b,
            alpha = mean_i max_j l_ij / mean_i |R^T (f_i - u)|

R are the eigenvectors of sum_i (f_i - u)(f_i - u)^T / N, not centred, but for those of
the D largest eigenvalues: what of the features the usual images do not use. u is where
all logits are 0. Bigger is more out-of-distribution; there is no map.

Reference: Sun et al. 2022, eq. 2 (KNN; the distance itself); Wang et al. 2022, eqs. 4
to 9 (ViM); as OpenOOD computes them, which adds 1e-10 to each n(f); docs/theory.md,
section 12.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base_classifier import (
    ClassifierDetector,
    Seen,
    classifier_of,
    without_map,
)
from klip_jax.detectors.base_fit import ROUNDING, ZERO, fitted
from klip_jax.detectors.base_settings import check_count
from klip_jax.types import Detection, Given, PRNGKey

_SHIFT = 1e-10


@struct.dataclass
class KNN(ClassifierDetector):
    """The squared distance of the features' direction to the k-th nearest usual one.

    Attributes:
      k: which neighbour, >= 1; where fewer images were fitted, the farthest of them.
      usual: directions of the fitted images' features, filled by `fit`.
    """

    k: int = struct.field(pytree_node=False, default=50)
    usual: Float[Array, "n f"] | None = None

    fits = True

    def __post_init__(self):
        check_count(k=self.k)

    def fit(self, looked: Seen) -> "KNN":
        return dataclasses.replace(self, usual=_directions(looked.features))

    def judge(self, looked: Seen) -> Detection:
        usual = fitted(self, self.usual)
        squares = jnp.sum((usual - _directions(looked.features)) ** 2, -1)
        nearest, _ = jax.lax.top_k(-squares, min(self.k, len(usual)))
        return without_map(-nearest[-1])


class Unused(NamedTuple):
    """Which directions of features the usual images do not use.

    Attributes:
      basis: R.
      alpha: of the logits over the length of what is unused.
    """

    basis: Float[Array, "f r"]
    alpha: Float[Array, ""]


@struct.dataclass
class ViM(ClassifierDetector):
    """A logit for "none of them", from what features have beside the usual ones.

    Attributes:
      dimensions: D, how many directions are usual, < F; 0 takes half as many as there
        are features, or images where those are fewer.
      unused: the others, filled by `fit`.
    """

    dimensions: int = struct.field(pytree_node=False, default=0)
    unused: Unused | None = None

    fits = True

    def __post_init__(self):
        check_count(0, dimensions=self.dimensions)

    def look(self, key: PRNGKey, given: Given) -> Seen:
        """Return f - u, and the logits."""
        features, logits = super().look(key, given)
        return Seen(features - origin(*classifier_of(given).head), logits)

    def fit(self, looked: Seen) -> "ViM":
        """Fit R and alpha, in float64.

        Raises:
          ValueError: if `dimensions` are not fewer than the features.
        """
        centred = np.asarray(looked.features, np.float64)
        count = centred.shape[-1]
        usual = self.dimensions or min(centred.shape) // 2
        if usual >= count:
            raise ValueError(
                f"dimensions={usual}: must be fewer than the {count} features"
            )
        _, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
        basis = vectors[:, : count - usual]  # eigenvalues increase
        rest = np.linalg.norm(centred @ basis, axis=1).mean()
        # Images that are all alike leave nothing but rounding.
        least = ROUNDING * np.linalg.norm(centred, axis=1).mean() + ZERO
        alpha = np.asarray(looked.logits, np.float64).max(1).mean() / max(rest, least)
        arrays = (jnp.asarray(a, jnp.float32) for a in (basis, alpha))
        return dataclasses.replace(self, unused=Unused(*arrays))

    def judge(self, looked: Seen) -> Detection:
        basis, alpha = fitted(self, self.unused)
        rest = jnp.matmul(looked.features, basis, precision="highest")
        length = jnp.linalg.norm(rest)
        return without_map(alpha * length - jax.nn.logsumexp(looked.logits))


def origin(weight: Float[Array, "f k"], bias: Float[Array, " k"]) -> Float[Array, " f"]:
    """Return u = -W^+ b, the shortest features whose logits are all 0.

    Args:
      weight, bias: W and b of the last layer, logits = features W + b.
    """
    return -jnp.matmul(bias, jnp.linalg.pinv(weight), precision="highest")


def _directions(features: Float[Array, "*n f"]) -> Float[Array, "*n f"]:
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    # Features may all be 0, and have no direction.
    return features / jnp.maximum(length, ZERO) + _SHIFT
