"""What every likelihood holds: the operator, what it measured, and the noise."""

import jax.numpy as jnp
from flax import struct
from jax import Array

from klip_jax.types import Denoiser, LinearOperator


@struct.dataclass
class Measured:
    """y = A x0 + n, n ~ N(0, noise_std^2 I), as a pytree.

    Attributes:
      operator: A.
      y: the measurements [operator.out_shape].
      noise_std: scalar > 0, in the unit of y, per real component.
    """

    operator: LinearOperator
    y: Array
    noise_std: Array

    def residual(self, x0: Array) -> Array:
        """Return y - A x0 [out_shape]."""
        return self.y - self.operator(x0)

    def conditional_shift(self, x0: Array, variance: Array) -> Array:
        """Return E[x | y] - x0 for the prior x ~ N(x0, variance I) [H, W, C].

        variance A^T (variance A A^T + noise_std^2 I)^-1 (y - A x0).
        """
        u = self.operator.solve_gram(self.residual(x0), variance, self.noise_std**2)
        return variance * self.operator.adjoint(u)


@struct.dataclass
class NoMeasurement:
    """The likelihood of having measured nothing: its score is zero."""

    def score(self, denoiser: Denoiser, x: Array, sigma: Array) -> tuple[Array, Array]:
        """Return (D(x, sigma), 0)."""
        return denoiser(x, sigma), jnp.zeros_like(x)
