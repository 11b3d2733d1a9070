"""Outlines as signed distances in pixels, negative inside, and the area they cover."""

import functools

import jax
import jax.numpy as jnp
from jax import Array


def ellipse_distance(x: Array, y: Array, a: Array, b: Array, angle: Array) -> Array:
    """Measure the first-order signed distance to an ellipse at the origin.

    g / |grad g| with g = (p^2 + q^2 - 1) / 2, p and q the coordinates along the axes in
    units of a and b: exact on the outline, and negative inside.

    Args:
      x: column coordinate, pixels, broadcast with `y` to [H, W].
      y: row coordinate, pixels.
      a: semi-axis along the direction `angle`, scalar, pixels.
      b: the other semi-axis, scalar, pixels.
      angle: from x towards y, scalar, radians.

    Returns:
      Distance [H, W], pixels.
    """
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    p, q = (cos * x + sin * y) / a, (cos * y - sin * x) / b
    slope = jax.lax.rsqrt((p / a) ** 2 + (q / b) ** 2 + 1e-12)
    return 0.5 * (p * p + q * q - 1.0) * slope


def trunk_distance(x, y, a, b, shape):
    """First-order signed distance to p^4 + shape p^2 q^2 + q^4 = 1; 2 is an ellipse."""
    p, q = x / a, y / b
    p2, q2 = p * p, q * q
    dp = p * (4.0 * p2 + 2.0 * shape * q2) / a
    dq = q * (4.0 * q2 + 2.0 * shape * p2) / b
    slope = jax.lax.rsqrt(dp**2 + dq**2 + 1e-12)
    return (p2 * p2 + shape * p2 * q2 + q2 * q2 - 1.0) * slope


def union(distances):
    """Distance to the union of structures [K, H, W]; folds faster than a reduction."""
    return functools.reduce(jnp.minimum, distances)


def coverage(distance):
    """Share of a pixel inside an outline at a signed `distance` in pixels."""
    return jnp.clip(0.5 - distance, 0.0, 1.0)
