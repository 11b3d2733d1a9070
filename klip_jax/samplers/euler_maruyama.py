"""Euler-Maruyama steps of the reverse SDE in variance-exploding coordinates."""

from typing import Any

import jax
import jax.numpy as jnp

from klip_jax import struct
from klip_jax.samplers.base import FromNoise
from klip_jax.types import Denoiser, Guidance, Image, PRNGKey, Scalar, StepInfo


@struct.dataclass
class EulerMaruyama(FromNoise):
    """Euler-Maruyama step from level s to s'.

    With v = s^2 - s'^2:  x' = x + v (score + guidance) + sqrt(v) z, so the path KL is
    1/2 sum v |guidance|^2. First order in the step. Needs sigma > sigma_next >= 0;
    shift = v * guidance.

    Reference: Song et al. 2021, eq. 6 and appendix E, with d(sigma^2) as time.
    """

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
        v = sigma**2 - sigma_next**2
        shift = v * score
        z = jax.random.normal(key, x.shape, x.dtype)
        new = x + v * (x0 - x) / sigma**2 + shift + jnp.sqrt(v) * z
        return new, StepInfo(sigma, sigma_next, x, x0, shift, v)
