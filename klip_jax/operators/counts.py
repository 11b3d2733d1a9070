"""Photon counts of computed tomography, their logarithm and its weights.

    n ~ Poisson(I e^(-mu y)),   y' = log(I / n) / mu,   std(y') = 1 / (mu sqrt(n))

(Sauer and Bouman 1993). A scan takes one noise_std a measurement:

    y, std = log_counts(key, operator(x), incident=1e4, attenuation=0.02)
    scan = Scan(operator, y, std)
"""

import math

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Num

from klip_jax.operators.base import Operator
from klip_jax.types import PRNGKey, Scalar


def log_counts(
    key: PRNGKey, y: Float[Array, "*shape"], *, incident: float, attenuation: float
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Count photons along the line integrals `y` and return the logarithms.

    The logarithm overestimates y by about 1 / (2 attenuation n); a bin that counts none
    is taken to have counted one.

    Args:
      key: of the counts.
      y: line integrals without noise [...], pixel lengths times image units.
      incident: expected number of photons in a bin without an object, > 0.
      attenuation: of a pixel of value 1, per pixel length, > 0.

    Returns:
      (y', std), both of y's shape and unit; std is the estimate from the counts.

    Raises:
      ValueError: if a setting is not positive and finite.
    """
    for name, value in (("incident", incident), ("attenuation", attenuation)):
        if not 0 < value < math.inf:
            raise ValueError(
                f"{name}={value}: must be positive and finite; give photons a bin and "
                "attenuation a pixel length"
            )
    n = jax.random.poisson(key, incident * jnp.exp(-attenuation * y))
    n = jnp.maximum(n, 1).astype(y.dtype)
    return jnp.log(incident / n) / attenuation, 1 / (attenuation * jnp.sqrt(n))


class Diagonal(Operator):
    """Multiply each entry by a factor of its own.

    Args:
      in_shape: of the entries, any number of axes.
      factors: real numbers, broadcast to `in_shape`; not all zero.

    `__call__` takes and returns [in_shape], in the unit of x times that of `factors`.

    Raises:
      ValueError: if `factors` does not fit, or has no finite or no other number than 0.
    """

    def __init__(self, in_shape: tuple[int, ...], factors=1.0):
        factors = jnp.asarray(factors, float)
        try:
            self.factors = jnp.broadcast_to(factors, in_shape)
        except ValueError:
            raise ValueError(
                f"factors of shape {factors.shape}: must broadcast to {in_shape}; "
                "give one for each entry"
            ) from None
        if not (bool(jnp.isfinite(factors).all()) and bool(jnp.any(factors != 0))):
            raise ValueError(
                "factors are not all finite, or all 0: must be finite and leave "
                "something; drop the entries that were not measured"
            )
        self.in_shape = self.out_shape = tuple(in_shape)

    def __call__(self, x: Num[Array, "..."]) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        return self.factors.astype(x.dtype) * x

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar
    ) -> Num[Array, "..."]:
        """Solve exactly: u = r / (variance * factors^2 + noise_var), [in_shape]."""
        return r / (variance * self.factors.astype(r.dtype) ** 2 + noise_var)
