"""Moment matching: p(x0 | x_sigma) is taken to be N(D, C), C = sigma^2 J, all of it.

    grad_x log p(y | x) ~ J^T A^T (A C A^T + s^2 I)^-1 (y - A D),   J = dD/dx,

solved by conjugate gradients, one derivative of the network an iteration. Exact for
every Gaussian prior, where p(x0 | x_sigma) is Gaussian, once the iterations are as many
as the solve needs; few of them stop short on the side of a smaller score.

The gradients are for symmetric J, which the Jacobian of an exact denoiser is. A
network's own may have directions of no or negative variance: there they stop.

Reference: Rozet et al. 2024 (MMPS), eq. 12-15 and algorithm 2, in variance-exploding
coordinates; Daras et al. 2024 name others. docs/theory.md, section 8.
"""

import jax
import jax.numpy as jnp

from klip_jax import struct
from klip_jax.scan import residual, whitened
from klip_jax.types import Denoiser, Image, Scalar, Scan


@struct.dataclass
class MMPS:
    """The score through the network's Jacobian, with Tweedie's covariance.

    Attributes:
      iterations: of the conjugate gradients, >= 1, one derivative of the network each
        beside that of the score. The paper has 1 to 3.

    Raises:
      ValueError: if there is no iteration.
    """

    iterations: int = struct.field(pytree_node=False, default=3)

    def __post_init__(self):
        if self.iterations < 1 or self.iterations % 1:
            raise ValueError(
                f"iterations={self.iterations}: must be an integer >= 1; the paper "
                "takes 1 to 3"
            )

    def score(
        self, denoiser: Denoiser, scan: Scan, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D, J^T A^T u), (A C A^T + s^2) u = y - A D; see `types.Guidance`."""
        if jnp.ndim(scan.noise_std):
            scan = whitened(scan)
        operator, noise_var = scan.operator, scan.noise_std**2
        x0, pullback = jax.vjp(lambda x: denoiser(x, sigma), x)

        def gram(u):
            seen = sigma**2 * pullback(operator.adjoint(u))[0]
            return operator(seen) + noise_var * u

        u = _conjugate_gradients(gram, residual(scan, x0), self.iterations)
        return x0, pullback(operator.adjoint(u))[0]


def _conjugate_gradients(gram, r, iterations):
    """Return u after so many iterations from 0; where gram is not positive it stays."""

    def dot(a, b):
        return jnp.real(jnp.vdot(a, b))

    def step(carry, _):
        u, r, p, power = carry
        image = gram(p)
        curvature = dot(p, image)
        # A residual of 0, as at the solution, has no direction left; NaN goes on.
        ends = (curvature <= 0) | (power <= 0)
        size = jnp.where(ends, 0, power / jnp.where(ends, 1, curvature))
        u, r = u + size * p, r - size * image
        new = dot(r, r)
        p = r + jnp.where(ends, 0, new / jnp.where(ends, 1, power)) * p
        return (u, r, p, jnp.where(ends, 0, new)), None

    start = jnp.zeros_like(r), r, r, dot(r, r)
    return jax.lax.scan(step, start, length=iterations)[0][0]
