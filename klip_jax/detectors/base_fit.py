"""What detectors that are fitted share: their law, and spreads that are never 0."""

from typing import TypeVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax.detectors.base import Detector

Law = TypeVar("Law")

# A spread this small beside the value itself is float32's, not the images'.
ROUNDING = 1e-5
ZERO = 1e-12


def spread(values: Float[Array, "n ..."]) -> Float[Array, "..."]:
    """Return the standard deviation over the first axis, never 0.

    sqrt(sum (v - mean)^2 / (N - 1)), at least what rounding makes of values that never
    vary, so that dividing by it gives a number.

    Raises:
      ValueError: if there are fewer than 2 values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} images: a spread needs at least 2")
    least = ROUNDING * jnp.abs(values).max(0) + ZERO
    return jnp.maximum(values.std(0, ddof=1), least)


def fitted(detector: Detector, law: Law | None) -> Law:
    """Return the law that `detector` holds.

    Raises:
      ValueError: if it was not fitted.
    """
    if law is None:
        name = type(detector).__name__
        raise ValueError(f"{name} judges only after fit(looked) of healthy images")
    return law
