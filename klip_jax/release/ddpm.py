"""The release's DDPM: ancestral steps with a move of fixed length towards the data.

In variance-exploding coordinates, for images in [0, 1], with r = y - A D(x, s) and
1 + 4 s^2 = 1 / abar_t (its networks take [-1, 1], where the noise is 2 s):

    shift = zeta / 2 (1 + 4 s^2) A^T r / |r|,
    x'    = D + shift + (s'/s)^2 (x - D) + (s'/s) sqrt(s^2 - s'^2) z.

Unlike DPS it drops the network's Jacobian. The step is zeta long whatever the distance
to the data, so that its energy is no likelihood's: a score, not nats. What it records,
shift / g with g^2 = beta_t / (4 abar_t), divides by one training step where the chain
takes ten.

Reference: Chung et al. 2023, algorithm 1 (DPS), as released with Kheirandish, Hong and
Fridovich-Keil 2026.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.guidance.base import Measured
from klip_jax.priors.base import timestep_sigmas
from klip_jax.samplers.base import gaussian_init
from klip_jax.types import Denoiser, Sampler, StepInfo

BETAS = np.linspace(1e-4, 0.02, 1000)


def ddpm(
    zeta: float = 0.3, *, clip: bool = False, batch_axis: str | None = None
) -> Sampler:
    """Guided DDPM step from level s to s', see the module.

    Args:
      zeta: length of the move for an operator of norm 1, > 0; units of [-1, 1] images.
      clip: bring D + shift into [0, 1], as the release does.
      batch_axis: name of the vmapped axis over which |r| is averaged, as in the
        release. It couples the samples; None does not.

    Returns:
      A `Sampler`; its `step` needs sigma > sigma_next >= 0. It takes the operator and y
      of the likelihood, not its score. noise_var = (s'/s)^2 (s^2 - s'^2), so without
      `clip` its path KL bounds the KL of its output to the unguided one's.

    Raises:
      ValueError: unless zeta > 0.
    """
    if not zeta > 0:
        raise ValueError(f"zeta={zeta}: must be > 0; it is the length of the move")

    def step(key, x, denoiser, likelihood, sigma, sigma_next):
        z = jax.random.normal(key, x.shape, x.dtype)
        levels = sigma, sigma_next
        settings = dict(zeta=zeta, clip=clip, batch_axis=batch_axis)
        return move(z, x, denoiser, likelihood, *levels, **settings)

    return Sampler(gaussian_init, step)


def move(
    z: Array,
    x: Array,
    denoiser: Denoiser,
    likelihood: Measured,
    sigma: Array,
    sigma_next: Array,
    *,
    zeta: float = 0.3,
    clip: bool = False,
    batch_axis: str | None = None,
) -> tuple[Array, StepInfo]:
    """Take the step of `ddpm` with the given noise.

    Args:
      z: standard normal [H, W, C].
      x: the state at sigma [H, W, C], image units.
      denoiser, likelihood, sigma, sigma_next: see `types.Sampler`.
      zeta, clip, batch_axis: see `ddpm`.

    Returns:
      (x', StepInfo).
    """
    x0 = denoiser(x, sigma)
    residual = likelihood.residual(x0)
    length = jnp.linalg.norm(residual.ravel())
    if batch_axis is not None:
        length = jax.lax.pmean(length, batch_axis)
    size = zeta / 2 * (1 + 4 * sigma**2) / jnp.maximum(length, 1e-12)
    shift = size * likelihood.operator.adjoint(residual)

    moved = jnp.clip(x0 + shift, 0, 1) if clip else x0 + shift
    keep = (sigma_next / sigma) ** 2
    noise_var = keep * (sigma**2 - sigma_next**2)
    # x + shift has the same noise as x, so what it keeps of it is x + shift - moved.
    x = moved + keep * (x + shift - moved) + jnp.sqrt(noise_var) * z
    return x, StepInfo(sigma, sigma_next, x0, shift, noise_var)


def levels(steps: int = 100, betas: np.ndarray = BETAS) -> Array:
    """Return the noise levels [steps + 1] of its chain, image units, the last one 0.

    Every (T / steps)-th of the T timesteps of the training, 0 among them.

    Args:
      steps: 1 <= steps <= T.
      betas: variances of the training [T].

    Raises:
      ValueError: if there are no steps or more than T.
    """
    if not 1 <= steps <= len(betas):
        raise ValueError(f"steps={steps}: must be in [1, {len(betas)}]")
    timesteps = np.arange(steps)[::-1] * (len(betas) // steps)
    return jnp.append(jnp.float32(timestep_sigmas(betas)[timesteps] / 2), 0)


def training_g(betas: np.ndarray = BETAS) -> Callable[[Array], Array]:
    """Return sigma -> g, the release's normalisation, in image units.

    g^2 = beta_t / (4 abar_t) with beta_t that of the training step at sigma.

    Args:
      betas: variances of the training [T].
    """
    log_sigmas = np.float32(np.log(timestep_sigmas(betas) / 2))

    def g(sigma):
        beta = jnp.interp(jnp.log(sigma), log_sigmas, np.float32(betas))
        return jnp.sqrt(beta * (1 + 4 * sigma**2)) / 2

    return g
