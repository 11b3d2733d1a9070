"""What was measured, y = A x0 + n with n ~ N(0, noise_std^2 I), and its Gaussians.

    E[x0 | y] = x + v A^T (v A A^T + S)^-1 (y - A x),   S = diag(noise_std^2),

for x0 ~ N(x, v I). With one noise_std for all measurements the operator solves this in
its own way (`solve_gram`); with one each, the scan is whitened first: rows of A and y
are divided by their noise, and conjugate gradients solve.

Reference: docs/theory.md, section 8; Papandreou and Yuille 2010, section 2 (draws).
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Num

from klip_jax.operators.base import Operator
from klip_jax.types import Image, LinearOperator, PRNGKey, Scalar, Scan


def simulate(
    key: PRNGKey,
    operator: LinearOperator,
    x: Image,
    noise_std: Float[Array, "..."] | float,
) -> Scan:
    """Measure `x`: y = A x + n. The one place where measurements are simulated.

    Args:
      key: of the noise.
      operator: A.
      x: the image, image units.
      noise_std: in the unit of y, per real component: one number, or one a measurement.

    Returns:
      A `Scan`.
    """
    return perturbed(key, Scan(operator, operator(x), noise_std))


def perturbed(key: PRNGKey, scan: Scan) -> Scan:
    """Return the scan with another draw of its noise added to y."""
    shape, dtype = scan.y.shape, scan.y.dtype
    n = scan.noise_std * jax.random.normal(key, shape, dtype)
    if jnp.iscomplexobj(n):  # jax draws complex numbers of variance 1, not 1 and 1
        n = 2**0.5 * n
    return scan._replace(y=scan.y + n)


def residual(scan: Scan, x0: Image) -> Num[Array, "..."]:
    """Return y - A x0 [out_shape], in the unit of y."""
    return scan.y - scan.operator(x0)


def data_score(scan: Scan, x0: Image, variance: Scalar) -> Image:
    """Return grad_m log p(y) at m = x0, where the image is N(m, variance I).

    A^T (variance A A^T + S)^-1 (y - A x0).

    Args:
      scan: what was measured.
      x0: the mean of the image, image units.
      variance: of each pixel, squared image units, >= 0.
    """
    if jnp.ndim(scan.noise_std):
        scan = whitened(scan)
    noise_var = scan.noise_std**2
    u = scan.operator.solve_gram(residual(scan, x0), variance, noise_var)
    return scan.operator.adjoint(u)


def conditional_shift(scan: Scan, x0: Image, variance: Scalar) -> Image:
    """Return E[x | y] - x0 for x ~ N(x0, variance I): variance times `data_score`."""
    return variance * data_score(scan, x0, variance)


def whitened(scan: Scan) -> Scan:
    """Return the same scan in units of its own noise: noise_std is 1."""
    operator = Whitened(scan.operator, scan.noise_std)
    return Scan(operator, scan.y / scan.noise_std, 1.0)


class Whitened(Operator):
    """The operator S^-1/2 A: each measurement divided by its own noise.

    Args:
      operator: A.
      noise_std: one a measurement, broadcast to [operator.out_shape], > 0.
    """

    def __init__(
        self, operator: LinearOperator, noise_std: Float[Array, "..."] | float
    ):
        self.operator, self.noise_std = operator, noise_std
        self.in_shape, self.out_shape = operator.in_shape, operator.out_shape
        self.out_dtype = operator.out_dtype

    def __call__(self, x: Float[Array, "..."]) -> Num[Array, "..."]:
        return self.operator(x) / self.noise_std

    def adjoint(self, y: Num[Array, "..."]) -> Float[Array, "..."]:
        return self.operator.adjoint(y / self.noise_std)
