"""Euler-Maruyama steps of the reverse SDE in variance-exploding coordinates."""

import jax
import jax.numpy as jnp

from klip_jax.samplers.base import gaussian_init
from klip_jax.types import Sampler, StepInfo


def euler_maruyama() -> Sampler:
    """Euler-Maruyama step from level s to s'.

    With v = s^2 - s'^2:  x' = x + v (score + guidance) + sqrt(v) z, so the path KL is
    1/2 sum v |guidance|^2. First order in the step.

    Returns:
      A `Sampler`; its `step` needs sigma > sigma_next >= 0. shift = v * guidance.

    Reference: Song et al. 2021, eq. 6 and appendix E, with d(sigma^2) as time.
    """

    def step(key, x, denoiser, likelihood, sigma, sigma_next):
        x0, guidance = likelihood.score(denoiser, x, sigma)
        v = sigma**2 - sigma_next**2
        shift = v * guidance
        z = jax.random.normal(key, x.shape, x.dtype)
        x = x + v * (x0 - x) / sigma**2 + shift + jnp.sqrt(v) * z
        return x, StepInfo(sigma, sigma_next, x0, shift, v)

    return Sampler(gaussian_init, step)
