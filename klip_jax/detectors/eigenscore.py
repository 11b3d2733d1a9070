"""EigenScore: how uncertain the prior is of the picture, along its strongest modes.

    Cov(x0 | x_s) = s^2 J,   J = dD/dx at x_s = x + s z,
    e_s = the sum of its K largest eigenvalues, the mean over z,
    score = the mean over levels of (e_s - m_s) / d_s

with m_s and d_s of in-distribution images. Eigenvalues are found by iterating a
subspace, V <- orthonormal basis of J V, and rotating what it ends with. The map is
sum_k lambda_k v_k^2, the variance of each pixel in these modes; it sums to e_s.

On a Gaussian prior J is the same at every image, and the score says nothing.

Departures: derivatives of the network, where the paper takes differences D(x +- c v);
10 times fewer iterations and draws; levels are settings, where the released script
chooses them on a set that has anomalies in it.

Reference: EigenScore 2025, arXiv 2510.07206; Manor and Michaeli 2024 (eigenvectors of
the posterior by subspace iteration); docs/theory.md, section 12.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_fit import fitted
from klip_jax.detectors.base_reconstruction import LevelLaw
from klip_jax.detectors.base_settings import check_count, check_positive
from klip_jax.posterior import at_null_label
from klip_jax.types import Denoiser, Detection, Given, Image, PRNGKey, Scalar


@struct.dataclass
class EigenScore(Detector):
    """The mean z-score of the leading posterior variance at several noise levels.

    Attributes:
      levels: noise levels, > 0, image units.
      modes: K, eigenvalues that are summed.
      iterations: of the subspace; K derivatives of the network each.
      draws: of the noise, averaged over.
      block: side of the blocks that localization counts, pixels.
      law: of each level's sum, filled by `fit`.
    """

    levels: tuple[Scalar, ...] = (0.1, 0.2, 0.4)
    modes: int = struct.field(pytree_node=False, default=3)
    iterations: int = struct.field(pytree_node=False, default=5)
    draws: int = struct.field(pytree_node=False, default=2)
    block: int = struct.field(pytree_node=False, default=4)
    law: LevelLaw | None = None

    fits = True

    def __post_init__(self):
        check_positive(levels=self.levels)
        check_count(modes=self.modes, iterations=self.iterations)
        check_count(draws=self.draws, block=self.block)

    @property
    def network_calls(self) -> int:
        """Calls of the network, each with one forward derivative."""
        return len(self.levels) * self.modes * self.iterations * self.draws

    def look(self, key: PRNGKey, given: Given) -> Float[Array, "k h w"]:
        """Return each level's map of variances, squared image units."""
        prior, x = at_null_label(given.prior), given.picture
        counts = dict(modes=self.modes, iterations=self.iterations)

        def at(inputs):
            index, sigma = inputs
            key_level = jax.random.fold_in(key, index)

            def one(n):
                key_z, key_v = jax.random.split(jax.random.fold_in(key_level, n))
                noised = x + sigma * jax.random.normal(key_z, x.shape, x.dtype)
                values, vectors = leading(key_v, noised, prior, sigma, **counts)
                return jnp.einsum("k,khwc->hw", values, vectors**2)

            return jax.lax.map(one, jnp.arange(self.draws)).mean(0)

        levels = jnp.asarray(self.levels)
        return jax.lax.map(at, (jnp.arange(len(levels)), levels))

    def fit(self, looked: Float[Array, "n k h w"]) -> "EigenScore":
        return dataclasses.replace(self, law=LevelLaw.of(looked))

    def judge(self, looked: Float[Array, "k h w"]) -> Detection:
        """Score the mean over levels of (e_s - m_s) / d_s."""
        return fitted(self, self.law).detection(looked)


def leading(
    key: PRNGKey,
    x: Image,
    prior: Denoiser,
    sigma: Scalar,
    *,
    modes: int,
    iterations: int,
) -> tuple[Float[Array, " k"], Float[Array, "k h w c"]]:
    """Return the largest eigenvalues of the posterior covariance, and their vectors.

    Args:
      key: of the first subspace.
      x: the state at level `sigma`, image units.
      prior: a denoiser.
      sigma: noise level, > 0, image units.
      modes: K.
      iterations: >= 1; the error falls as (lambda_{K+1} / lambda_k)^iterations.

    Returns:
      Eigenvalues of s^2 (J + J^T) / 2 in the last subspace, increasing, squared image
      units; orthonormal vectors.
    """

    def push(v):
        return jax.jvp(lambda x: prior(x, sigma), (x,), (v.reshape(x.shape),))

    def step(carry, _):
        v, *_ = carry
        x0, image = jax.lax.map(push, v)
        image = image.reshape(v.shape)
        inside = jnp.matmul(image, v.T, precision="highest")
        return (jnp.linalg.qr(image.T)[0].T, v, inside, x0[0]), None

    start = jax.random.normal(key, (modes, x.size), x.dtype)
    v = jnp.linalg.qr(start.T)[0].T
    carry = v, v, jnp.zeros((modes, modes), x.dtype), x
    (_, v, inside, x0), _ = jax.lax.scan(step, carry, length=iterations)
    values, turn = jnp.linalg.eigh((inside + inside.T) / 2)
    # A linear denoiser's derivative knows nothing of x: what is not finite stays so.
    values = sigma**2 * values + 0 * x0.sum()
    return values, (turn.T @ v).reshape(modes, *x.shape)
