"""Diffusion posterior sampling: p(x0 | x_sigma) is taken to be a point at D.

    grad_x log p(y | x) ~ J^T A^T (y - A D) / s^2,    J = dD/dx,

with the true noise s, not a tuned step size. The point mass ignores Cov(x0 | x_sigma),
so the score is far too large wherever sigma^2 A A^T exceeds s^2 (2300 times the KL on a
smooth Gaussian problem); as sigma -> 0 it becomes exact.

Reference: Chung et al. 2023, eq. 11-16; docs/theory.md, section 8.
"""

import jax

from klip_jax import struct
from klip_jax.scan import residual
from klip_jax.types import Denoiser, Image, Scalar, Scan


@struct.dataclass
class DPS:
    """The score through the network's Jacobian."""

    def score(
        self, denoiser: Denoiser, scan: Scan, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D, J^T A^T (y - A D) / s^2); see `types.Guidance`."""
        x0, pullback = jax.vjp(lambda x: denoiser(x, sigma), x)
        return x0, pullback(_misfit_gradient(scan, x0))[0]


@struct.dataclass
class DPSWithoutJacobian:
    """The same with J = I: no derivative of the network, half the cost."""

    def score(
        self, denoiser: Denoiser, scan: Scan, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D, A^T (y - A D) / s^2); see `types.Guidance`."""
        x0 = denoiser(x, sigma)
        return x0, _misfit_gradient(scan, x0)


def _misfit_gradient(scan: Scan, x0: Image) -> Image:
    return scan.operator.adjoint(residual(scan, x0) / scan.noise_std**2)
