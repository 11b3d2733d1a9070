"""Predictor-corrector sampling: Langevin steps at a level, then a step to the next."""

import jax
import jax.numpy as jnp

from klip_jax.samplers.base import check_langevin, gaussian_init, langevin_steps
from klip_jax.types import Sampler, StepInfo


def predictor_corrector(size: float = 0.5, steps: int = 1) -> Sampler:
    """Correct at level s by Langevin steps, then predict s' by an ancestral step.

    K times x <- x + r s^2 (score + guidance) + sqrt(2 r) s z, then with v = s^2 - s'^2
    x' = x + v (score + guidance) + (s'/s) sqrt(v) z. First order in the step; with 50
    levels a posterior covariance is 4 % off, that of ancestral sampling with 100, 10 %.

    Args:
      size: r in (0, 1], the corrector's step in units of s^2.
      steps: K >= 1 corrections a level; K + 1 network calls.

    Returns:
      A `Sampler`; its `step` needs sigma > sigma_next >= 0. shift is the sum of what
      the guidance adds in the K + 1 moves; noise_var = 0, because the kernel of several
      moves is not white: no path KL.

    Raises:
      ValueError: if `size` or `steps` is out of range.

    Reference: Song et al. 2021, algorithm 1 and appendix G, with the corrector first,
    as the step to 0 cannot be corrected. There r s^2 = 2 (snr |z| / |score|)^2, which
    is r = 2 snr^2 where the score is that of the noise; ours does not depend on x, nor
    on other images.
    """
    check_langevin(size, steps)

    def step(key, x, denoiser, likelihood, sigma, sigma_next):
        key_corrector, key_predictor = jax.random.split(key)
        sizes = jnp.full(steps, size, x.dtype)
        x, _, corrected = langevin_steps(
            key_corrector, x, denoiser, likelihood, sigma, sizes, jnp.sqrt(2 * sizes)
        )
        x0, guidance = likelihood.score(denoiser, x, sigma)
        v = sigma**2 - sigma_next**2
        shift = v * guidance
        z = jax.random.normal(key_predictor, x.shape, x.dtype)
        x = x + v * (x0 - x) / sigma**2 + shift + sigma_next / sigma * jnp.sqrt(v) * z
        return x, StepInfo(sigma, sigma_next, x0, corrected + shift, sigma * 0)

    return Sampler(gaussian_init, step)
