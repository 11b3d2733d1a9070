"""What simulated anomalies look like: sizes, contrasts, and where they are put.

Not those of the test sets, on purpose: what is chosen on these must carry over to other
anomalies.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Kind(NamedTuple):
    """What the anomalies look like; lengths in pixels of a 64-pixel image, which scale.

    Attributes:
      contrast: range of the uniform absolute change of a lesion, image units; the sign
        is random.
      radius: range of the uniform mean radius r0 of a lesion; that of a grating is 1.5
        times as large.
      roughness: standard deviation of each a_k.
      softness: width of the edge, pixels of any image.
      amplitude: range of the uniform root mean square of a grating, image units.
      wavelength: range of the uniform wavelengths of a grating.
      length: range of the uniform length of a stroke.
      turn: largest absolute angle by which a stroke turns, radians; uniform.
      width: of a stroke.
      streaks: range of the uniform root mean square of streaks, image units.
      views: how many views are bad.
    """

    contrast: tuple[float, float] = (0.06, 0.2)
    radius: tuple[float, float] = (2.0, 5.0)
    roughness: float = 0.12
    softness: float = 1.5
    amplitude: tuple[float, float] = (0.05, 0.12)
    wavelength: tuple[float, float] = (2.5, 6.0)
    length: tuple[float, float] = (8.0, 20.0)
    turn: float = 2.0
    width: float = 1.5
    streaks: tuple[float, float] = (0.015, 0.04)
    views: int = 3


DEFAULT = Kind()


def place(key, eligible):
    """Row and column of an eligible pixel."""
    lot = jax.random.uniform(key, eligible.shape, minval=1.0, maxval=2.0)
    pixel = jnp.argmax(jnp.where(eligible, lot, 0.0))
    return pixel // eligible.shape[1], pixel % eligible.shape[1]


def signed(key, span):
    """Draw uniformly from `span`, with a random sign."""
    low, high = span
    u = jax.random.uniform(key, (2,))
    return (low + (high - low) * u[0]) * jnp.where(u[1] < 0.5, -1.0, 1.0)


def tissue(image: Array, greys: tuple[float, float]) -> Array:
    """Find the pixels whose 3 x 3 neighbourhood lies within `greys`.

    Args:
      image: [H, W, 1] in [0, 1].
      greys: lowest and highest grey of the tissue.

    Returns:
      Boolean mask [H, W]: where a lesion may be centred.
    """
    low, high = greys
    outside = (image[..., 0] < low) | (image[..., 0] > high)
    near = jax.lax.reduce_window(
        outside.astype(jnp.int32), 0, jax.lax.max, (3, 3), (1, 1), "SAME"
    )
    return near == 0
