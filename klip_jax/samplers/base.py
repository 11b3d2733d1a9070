"""What the samplers share: the first state and the check of a multiplier."""

import jax
import jax.numpy as jnp
from jax import Array


def gaussian_init(key: Array, shape: tuple[int, ...], sigma: Array) -> Array:
    """Draw x ~ N(0, sigma^2 I): at the highest level the image no longer shows."""
    return sigma * jax.random.normal(key, shape, jnp.asarray(sigma).dtype)


def check_eta(eta: float) -> None:
    """Raise a ValueError if `eta` is negative."""
    if eta < 0:
        raise ValueError(f"eta={eta}: the noise multiplier must be >= 0")
