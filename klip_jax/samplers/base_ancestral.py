"""The ancestral (DDPM) step, which other samplers take too.

    x' = x + v (score + guidance) + eta (s'/s) sqrt(v) z,   v = s^2 - s'^2

Reference: Ho et al. 2020, eq. 6-7, in the coordinates of Karras et al. 2022, eq. 4.
"""

from typing import Any

import jax
import jax.numpy as jnp

from klip_jax.types import Denoiser, Guidance, Image, PRNGKey, Scalar, StepInfo


def ancestral_step(
    key: PRNGKey,
    x: Image,
    denoiser: Denoiser,
    guidance: Guidance,
    scan: Any,
    sigma: Scalar,
    sigma_next: Scalar,
    *,
    eta: Scalar = 1.0,
) -> tuple[Image, StepInfo]:
    """Go from `sigma` to `sigma_next`.

    Args:
      key: of the noise z.
      x: the state, image units.
      denoiser, guidance, scan: see `types`.
      sigma, sigma_next: s > s' >= 0, image units.
      eta: noise multiplier, dimensionless, >= 0; 1 is DDPM's posterior variance.

    Returns:
      The next state, and the step; its shift is v * guidance.
    """
    x0, score = guidance.score(denoiser, scan, x, sigma)
    v = sigma**2 - sigma_next**2
    shift = v * score
    noise_var = eta**2 * v * (sigma_next / sigma) ** 2
    z = jax.random.normal(key, x.shape, x.dtype)
    new = x + v * (x0 - x) / sigma**2 + shift + jnp.sqrt(noise_var) * z
    return new, StepInfo(sigma, sigma_next, x, x0, shift, noise_var)
