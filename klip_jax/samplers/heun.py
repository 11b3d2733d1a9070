"""Heun's method for the probability-flow ODE: second order, two network calls a step.

In variance-exploding coordinates dx/ds = (x - D_y(x, s)) / s with D_y = D + s^2
guidance. Its solutions have the marginals of the reverse SDE. With churn fresh noise
comes in along the way and takes the place of old one, and of old errors.
"""

from typing import Any

import jax
import jax.numpy as jnp

from klip_jax import struct
from klip_jax.samplers.base import FromNoise, is_number
from klip_jax.types import Denoiser, Guidance, Image, PRNGKey, Scalar, StepInfo


@struct.dataclass
class Heun(FromNoise):
    """Heun step from level s to s'.

    With the slope d(x, s) = (x - D(x, s)) / s - s guidance(x, s):
    e = x + (s' - s) d(x, s),  x' = x + (s' - s) (d(x, s) + d(e, s')) / 2, and x' = e
    where s' = 0. Second order in the step. Needs sigma > sigma_next >= 0; shift is what
    the guidance adds to x' along the two slopes; there is no path KL.

    With churn c the step starts higher, at (1 + c) s, from x + s sqrt(c (2 + c)) z.

    Attributes:
      churn: c, dimensionless, >= 0; 0 is the deterministic flow.

    Raises:
      ValueError: if churn is negative.

    Reference: Karras et al. 2022, algorithms 1 and 2 (there c = S_churn / steps).
    """

    churn: Scalar = 0.0

    def __post_init__(self):
        if is_number(self.churn) and not self.churn >= 0:
            raise ValueError(f"churn={self.churn}: the noise put in must be >= 0")

    @property
    def calls_per_step(self) -> int:
        """Network calls of one step."""
        return 2

    def step(
        self,
        key: PRNGKey,
        x: Image,
        denoiser: Denoiser,
        guidance: Guidance,
        scan: Any,
        sigma: Scalar,
        sigma_next: Scalar,
    ) -> tuple[Image, StepInfo]:
        """Go from `sigma` to `sigma_next`; see `types.Sampler`."""
        z = jax.random.normal(key, x.shape, x.dtype)
        higher = (1 + self.churn) * sigma
        x = x + sigma * jnp.sqrt(self.churn * (2 + self.churn)) * z

        def slope(x, sigma):
            x0, score = guidance.score(denoiser, scan, x, sigma)
            return x0, (x - x0) / sigma, sigma * score

        h = higher - sigma_next
        x0, first, pull = slope(x, higher)
        euler = x - h * (first - pull)
        # The slope at 0 is 0 / 0; the step there is Euler's, at any level's cost.
        last = sigma_next == 0
        _, second, pull_next = slope(euler, jnp.where(last, higher, sigma_next))
        average = jnp.where(last, first, (first + second) / 2)
        shift = h * jnp.where(last, pull, (pull + pull_next) / 2)
        info = StepInfo(sigma, sigma_next, x, x0, shift, jnp.zeros_like(sigma))
        return x - h * average + shift, info
