"""Ancestral (DDPM) sampling in variance-exploding coordinates.

Its path KL, sum |shift|^2 / (2 noise_var), is the left-endpoint Riemann sum of the KL
integral in the signal-to-noise ratio: 1/2 sum (1/s'^2 - 1/s^2) |D_y - D|^2.
"""

import jax
import jax.numpy as jnp

from klip_jax.samplers.base import check_eta, gaussian_init
from klip_jax.types import Sampler, StepInfo


def ancestral(eta: float = 1.0) -> Sampler:
    """Ancestral step from level s to s'.

    With v = s^2 - s'^2:  x' = x + v (score + guidance) + eta (s'/s) sqrt(v) z.
    First order in the step.

    Args:
      eta: noise multiplier, dimensionless, >= 0; 1 is DDPM's posterior variance.

    Returns:
      A `Sampler`; its `step` needs sigma > sigma_next >= 0. shift = v * guidance.

    Raises:
      ValueError: if eta is negative.

    Reference: Ho et al. 2020, eq. 6-7, in the coordinates of Karras et al. 2022, eq. 4.
    """
    check_eta(eta)

    def step(key, x, denoiser, likelihood, sigma, sigma_next):
        x0, guidance = likelihood.score(denoiser, x, sigma)
        v = sigma**2 - sigma_next**2
        shift = v * guidance
        noise_var = eta**2 * v * (sigma_next / sigma) ** 2
        z = jax.random.normal(key, x.shape, x.dtype)
        x = x + v * (x0 - x) / sigma**2 + shift + jnp.sqrt(noise_var) * z
        return x, StepInfo(sigma, sigma_next, x0, shift, noise_var)

    return Sampler(gaussian_init, step)
