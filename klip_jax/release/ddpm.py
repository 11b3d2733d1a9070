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
from jaxtyping import Float

from klip_jax import struct
from klip_jax.priors.base import timestep_sigmas
from klip_jax.samplers.base import FromNoise, is_number, next_state
from klip_jax.scan import residual
from klip_jax.types import (
    Denoiser,
    Guidance,
    Image,
    PRNGKey,
    Scalar,
    Scan,
    StepInfo,
)

BETAS = np.linspace(1e-4, 0.02, 1000)


@struct.dataclass
class DDPM(FromNoise):
    """Guided DDPM step from level s to s', see the module.

    Needs sigma > sigma_next >= 0. It takes operator and y of the scan, not the
    guidance. noise_var = (s'/s)^2 (s^2 - s'^2), so without `clip` its path KL bounds
    the KL of its output to the unguided one's.

    Attributes:
      zeta: length of the move for an operator of norm 1, > 0; units of [-1, 1] images.
      clip: bring D + shift into [0, 1], as the release does.
      batch_axis: name of the vmapped axis over which |r| is averaged, as in the
        release. It couples the samples; None does not.

    Raises:
      ValueError: unless zeta > 0.
    """

    zeta: Scalar = 0.3
    clip: bool = struct.field(pytree_node=False, default=False)
    batch_axis: str | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self):
        if is_number(self.zeta) and not self.zeta > 0:
            raise ValueError(
                f"zeta={self.zeta}: must be > 0; it is the length of the move"
            )

    def step(
        self,
        key: PRNGKey,
        x: Image,
        denoiser: Denoiser,
        guidance: Guidance,
        scan: Scan,
        sigma: Scalar,
        sigma_next: Scalar,
    ) -> tuple[Image, StepInfo]:
        """Go from `sigma` to `sigma_next`; see `types.Sampler`."""
        z = jax.random.normal(key, x.shape, x.dtype)
        return self.move(z, x, denoiser, scan, sigma, sigma_next)

    def move(
        self,
        z: Image,
        x: Image,
        denoiser: Denoiser,
        scan: Scan,
        sigma: Scalar,
        sigma_next: Scalar,
    ) -> tuple[Image, StepInfo]:
        """Take the step with the given noise z, standard normal."""
        x0 = denoiser(x, sigma)
        r = residual(scan, x0)
        length = jnp.linalg.norm(r.ravel())
        if self.batch_axis is not None:
            length = jax.lax.pmean(length, self.batch_axis)
        size = self.zeta / 2 * (1 + 4 * sigma**2) / jnp.maximum(length, 1e-12)
        shift = size * scan.operator.adjoint(r)

        moved = jnp.clip(x0 + shift, 0, 1) if self.clip else x0 + shift
        keep = (sigma_next / sigma) ** 2
        noise_var = keep * (sigma**2 - sigma_next**2)
        # x + shift has the noise of x, so what it keeps of it is x + shift - moved.
        new = next_state(z, x + shift, moved, 0, keep, jnp.sqrt(noise_var))
        return new, StepInfo(sigma, sigma_next, x, x0, shift, noise_var)


def levels(steps: int = 100, betas: np.ndarray = BETAS) -> Float[Array, " t"]:
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
    return jnp.append(jnp.float32(_sigmas(betas)[timesteps]), 0)


def training_g(betas: np.ndarray = BETAS) -> Callable[[Scalar], Scalar]:
    """Return sigma -> g, the release's normalisation, in image units.

    g^2 = beta_t / (4 abar_t) with beta_t that of the training step at sigma.

    Args:
      betas: variances of the training [T].
    """
    log_sigmas = np.float32(np.log(_sigmas(betas)))

    def g(sigma):
        beta = jnp.interp(jnp.log(sigma), log_sigmas, np.float32(betas))
        return jnp.sqrt(beta * (1 + 4 * sigma**2)) / 2

    return g


def _sigmas(betas):
    """Return the noise level of each timestep [T] in image units."""
    return timestep_sigmas(tuple(np.asarray(betas, float).tolist())) / 2
