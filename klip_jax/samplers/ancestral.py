"""Ancestral (DDPM) sampling in variance-exploding coordinates.

Its path KL, sum |shift|^2 / (2 noise_var), is the left-endpoint Riemann sum of the KL
integral in the signal-to-noise ratio: 1/2 sum (1/s'^2 - 1/s^2) |D_y - D|^2.
"""

from typing import Any

from klip_jax import struct
from klip_jax.samplers.base import FromNoise, check_eta
from klip_jax.samplers.base_ancestral import ancestral_step
from klip_jax.types import Denoiser, Guidance, Image, PRNGKey, Scalar, StepInfo


@struct.dataclass
class Ancestral(FromNoise):
    """Ancestral step from level s to s'.

    With v = s^2 - s'^2:  x' = x + v (score + guidance) + eta (s'/s) sqrt(v) z.
    First order in the step. Needs sigma > sigma_next >= 0; shift = v * guidance.

    Attributes:
      eta: noise multiplier, dimensionless, >= 0; 1 is DDPM's posterior variance.

    Raises:
      ValueError: if eta is negative.

    Reference: Ho et al. 2020, eq. 6-7, in the coordinates of Karras et al. 2022, eq. 4.
    """

    eta: Scalar = 1.0

    def __post_init__(self):
        check_eta(self.eta)

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
        given = denoiser, guidance, scan, sigma, sigma_next
        return ancestral_step(key, x, *given, eta=self.eta)
