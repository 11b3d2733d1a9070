"""DDIM in variance-exploding coordinates: move along the line through the estimate."""

from typing import Any

import jax
import jax.numpy as jnp

from klip_jax import struct
from klip_jax.samplers.base import FromNoise, check_eta, is_number, next_state
from klip_jax.types import Denoiser, Guidance, Image, PRNGKey, Scalar, StepInfo


@struct.dataclass
class DDIM(FromNoise):
    """DDIM step from level s to s'.

    With D_y = D + s^2 guidance and w = eta (s'/s) sqrt(s^2 - s'^2):
    x' = D_y + sqrt(s'^2 - w^2) / s * (x - D_y) + w z. First order in the step. With
    eta = 0 it is Euler's method for the probability-flow ODE in sigma, dx/ds = (x -
    D_y) / s, the first-order sampler of Karras et al. 2022. Needs sigma > sigma_next >=
    0; shift is what the guidance adds to x'; with eta = 0 there is no noise, so no path
    KL.

    Attributes:
      eta: noise multiplier in [0, 1]; 0 is deterministic, 1 is ancestral sampling.

    Raises:
      ValueError: if eta is outside [0, 1].

    Reference: Song, Meng and Ermon 2021, eq. 12 and 16.
    """

    eta: Scalar = 0.0

    def __post_init__(self):
        check_eta(self.eta)
        if is_number(self.eta) and self.eta > 1:
            raise ValueError(f"eta={self.eta}: DDIM needs 0 <= eta <= 1")

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
        x0, score = guidance.score(denoiser, scan, x, sigma)
        noise_var = (self.eta * sigma_next / sigma) ** 2 * (sigma**2 - sigma_next**2)
        keep = jnp.sqrt(jnp.maximum(sigma_next**2 - noise_var, 0)) / sigma
        shift = (1 - keep) * sigma**2 * score
        z = jax.random.normal(key, x.shape, x.dtype)
        new = next_state(z, x, x0, shift, keep, jnp.sqrt(noise_var))
        return new, StepInfo(sigma, sigma_next, x, x0, shift, noise_var)
