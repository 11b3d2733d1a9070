"""Tweedie moment projection: p(x0 | x_sigma) is taken to be N(D, C), C = sigma^2 J.

    grad_x log p(y | x) ~ J^T A^T (y - A D) / c,   c = s^2 + A C A^T 1,   J = dD/dx.

C is Tweedie's covariance. Of A C A^T only the sums of its rows are used, one derivative
of the network for all of them, so that nothing is solved. Exact where A C A^T is
diagonal, as for a white prior of which pixels are seen, and along a residual that is
the same everywhere where all rows have the same sum. Where no entry of A C A^T is
negative, diag(A C A^T 1) is at least A C A^T, and the score is too small rather than
too large. Where entries cancel, sums say nothing: the KL at many levels is .88 of the
truth on the smooth G16 of the tests, and 107 times it on their random R16.

Reference: Boys et al. 2023 (TMPD), section 4 and its diagonal by rows, in
variance-exploding coordinates; row sums that an inexact network makes negative are
taken for 0. docs/theory.md, section 8.
"""

import jax
import jax.numpy as jnp

from klip_jax import struct
from klip_jax.scan import residual, whitened
from klip_jax.types import Denoiser, Image, Scalar, Scan


@struct.dataclass
class TMPD:
    """The score through the network's Jacobian, each measurement by its own variance.

    Two derivatives of the network: one for the row sums, one for the score.
    """

    def score(
        self, denoiser: Denoiser, scan: Scan, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D, J^T A^T (y - A D) / c); see `types.Guidance`."""
        if jnp.ndim(scan.noise_std):
            scan = whitened(scan)
        operator = scan.operator
        x0, pullback = jax.vjp(lambda x: denoiser(x, sigma), x)
        ones = jnp.ones_like(scan.y)
        # A real measurement's row sum; of a complex one the real component's.
        sums = jnp.real(operator(sigma**2 * pullback(operator.adjoint(ones))[0]))
        variance = scan.noise_std**2 + jnp.maximum(sums, 0)
        return x0, pullback(operator.adjoint(residual(scan, x0) / variance))[0]
