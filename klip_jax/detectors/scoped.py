"""SCOPED: the length of the score over its divergence, and which values are usual.

    T_s = |g|^2 / (-div g),   g = (D(x, s) - x) / s^2,   div g ~ v^T (dg/dx) v,

v random signs (Hutchinson 1990). The means of both over p(x_s) are equal (Hyvarinen
2005), so that T_s is near 1 for states of the prior. Values of in-distribution images
get a kernel density at each level; the score is the largest -log density.

Departures: x itself, without noise, where what we know of the paper does not say; the
two levels are settings, where it chooses them by the signal-to-noise ratio of
in-distribution images; the kernel's width is Silverman's.

Reference: SCOPED 2026 (ICLR); docs/theory.md, section 12.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_density import Mixture, kernels
from klip_jax.detectors.base_fit import fitted
from klip_jax.detectors.base_settings import check_positive, check_range
from klip_jax.posterior import at_null_label
from klip_jax.types import Denoiser, Detection, Given, Image, PRNGKey, Scalar


@struct.dataclass
class SCOPED(Detector):
    """How unusual |score|^2 / divergence is, at its most unusual level; no map.

    Attributes:
      levels: noise levels, > 0, image units.
      bandwidth: of the kernels in standard deviations of the fitted values; 0 takes
        Silverman's rule.
      law: of the values of each level, filled by `fit`.
    """

    levels: tuple[Scalar, ...] = (0.05, 0.5)
    bandwidth: Scalar = 0.0
    law: Mixture | None = None

    unit: ClassVar[str] = "nats"
    fits = True

    def __post_init__(self):
        check_positive(levels=self.levels)
        check_range(0.0, float("inf"), bandwidth=self.bandwidth)

    @property
    def network_calls(self) -> int:
        """Calls of the network, each with one forward derivative."""
        return len(self.levels)

    def look(self, key: PRNGKey, given: Given) -> Float[Array, " k"]:
        """Return T of each level, without unit; level k uses fold_in(key, k)."""
        prior, x = at_null_label(given.prior), given.picture
        levels = jnp.asarray(self.levels)

        def at(inputs):
            index, sigma = inputs
            return ratio(jax.random.fold_in(key, index), x, prior, sigma)

        return jax.lax.map(at, (jnp.arange(len(levels)), levels))

    def fit(self, looked: Float[Array, "n k"]) -> "SCOPED":
        each = [kernels(level[:, None], self.bandwidth) for level in looked.T]
        law = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        return dataclasses.replace(self, law=law)

    def judge(self, looked: Float[Array, " k"]) -> Detection:
        law = fitted(self, self.law)
        log_probs = jax.vmap(lambda law, t: law.log_prob(t[None]))(law, looked)
        return Detection(jnp.max(-log_probs), jnp.full((), jnp.nan))


def ratio(key: PRNGKey, x: Image, prior: Denoiser, sigma: Scalar) -> Float[Array, ""]:
    """Return |g|^2 / |v^T (dg/dx) v|, one network call and one forward derivative.

    Args:
      key: of the signs v.
      x: image, image units.
      prior: a denoiser.
      sigma: noise level, > 0, image units.
    """
    v = jax.random.rademacher(key, x.shape, x.dtype)
    x0, pushed = jax.jvp(lambda x: prior(x, sigma), (x,), (v,))
    # Both times s^2: |D - x|^2 / s^2 over v^T (1 - J) v, which has no unit either.
    divergence = jnp.abs(jnp.vdot(v, v - pushed))
    return jnp.sum((x0 - x) ** 2) / (sigma**2 * jnp.maximum(divergence, 1e-6))
