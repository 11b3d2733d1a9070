"""Diffusion posterior sampling: p(x0 | x_sigma) is taken to be a point at D.

    grad_x log p(y | x) ~ J^T A^T (y - A D) / s^2,    J = dD/dx,

with the true noise s, not a tuned step size. The point mass ignores Cov(x0 | x_sigma),
so the score is far too large wherever sigma^2 A A^T exceeds s^2 (theory: 2300 times the
KL on a smooth Gaussian problem); as sigma -> 0 it becomes exact.

Reference: Chung et al. 2023, eq. 11-16.
"""

import jax
from flax import struct
from jax import Array

from klip_jax.guidance.base import Measured
from klip_jax.types import Denoiser


@struct.dataclass
class DPS(Measured):
    """The score through the network's Jacobian."""

    def score(self, denoiser: Denoiser, x: Array, sigma: Array) -> tuple[Array, Array]:
        """Return (D, J^T A^T (y - A D) / s^2); see `types.Likelihood`."""
        x0, pullback = jax.vjp(lambda x: denoiser(x, sigma), x)
        data = self.operator.adjoint(self.residual(x0)) / self.noise_std**2
        return x0, pullback(data)[0]


@struct.dataclass
class DPSWithoutJacobian(Measured):
    """The same with J = I: no derivative of the network, half the cost."""

    def score(self, denoiser: Denoiser, x: Array, sigma: Array) -> tuple[Array, Array]:
        """Return (D, A^T (y - A D) / s^2); see `types.Likelihood`."""
        x0 = denoiser(x, sigma)
        return x0, self.operator.adjoint(self.residual(x0)) / self.noise_std**2
