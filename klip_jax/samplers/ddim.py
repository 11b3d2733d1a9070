"""DDIM in variance-exploding coordinates: move along the line through the estimate."""

import jax
import jax.numpy as jnp

from klip_jax.samplers.base import check_eta, gaussian_init
from klip_jax.types import Sampler, StepInfo


def ddim(eta: float = 0.0) -> Sampler:
    """DDIM step from level s to s'.

    With D_y = D + s^2 guidance and w = eta (s'/s) sqrt(s^2 - s'^2):
    x' = D_y + sqrt(s'^2 - w^2) / s * (x - D_y) + w z. First order in the step. With
    eta = 0 it is Euler's method for the probability-flow ODE in sigma, dx/ds = (x -
    D_y) / s, the first-order sampler of Karras et al. 2022.

    Args:
      eta: noise multiplier in [0, 1]; 0 is deterministic, 1 is ancestral sampling.

    Returns:
      A `Sampler`; its `step` needs sigma > sigma_next >= 0. shift is what the guidance
      adds to x'; with eta = 0 there is no noise, so no path KL.

    Raises:
      ValueError: if eta is outside [0, 1].

    Reference: Song, Meng and Ermon 2021, eq. 12 and 16.
    """
    check_eta(eta)
    if eta > 1:
        raise ValueError(f"eta={eta}: DDIM needs 0 <= eta <= 1")

    def step(key, x, denoiser, likelihood, sigma, sigma_next):
        x0, guidance = likelihood.score(denoiser, x, sigma)
        noise_var = (eta * sigma_next / sigma) ** 2 * (sigma**2 - sigma_next**2)
        keep = jnp.sqrt(jnp.maximum(sigma_next**2 - noise_var, 0)) / sigma
        shift = (1 - keep) * sigma**2 * guidance
        z = jax.random.normal(key, x.shape, x.dtype)
        x = x0 + keep * (x - x0) + shift + jnp.sqrt(noise_var) * z
        return x, StepInfo(sigma, sigma_next, x0, shift, noise_var)

    return Sampler(gaussian_init, step)
