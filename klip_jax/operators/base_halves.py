"""A A^T of a scanner in halves, even and odd in the detector, and its eigenvectors.

Where turning the image by 180 degrees reverses the detector, A A^T does not mix the
two, and two eigenproblems of half the size cost a quarter of one.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array


def fold(y, mirrored: bool):
    """Split [views, detectors, ...] into its even and odd parts under u -> -u.

    Where the detector is not `mirrored`, everything is "even".
    """
    xp = jnp if isinstance(y, Array) else np
    half = y.shape[1] // 2 if mirrored else 0
    left, right = y[:, :half], y[:, ::-1][:, :half]
    middle = y[:, half : y.shape[1] - half]
    even = xp.concatenate([(left + right) * math.sqrt(0.5), middle], axis=1)
    return even, (left - right) * math.sqrt(0.5)


def unfold(even: Array, odd: Array) -> Array:
    """Invert `fold`."""
    half = odd.shape[1]
    left = (even[:, :half] + odd) * math.sqrt(0.5)
    right = (even[:, :half] - odd) * math.sqrt(0.5)
    return jnp.concatenate([left, even[:, half:], right[:, ::-1]], axis=1)


def eigen(rows: np.ndarray) -> tuple[Array, Array]:
    """Return eigenvalues [n] and eigenvectors [n, n] of A A^T, A = `rows` [..., HW]."""
    rows = rows.reshape(-1, rows.shape[-1])
    power, basis = np.linalg.eigh(rows @ rows.T)  # float64: keeps small eigenvalues
    return jnp.asarray(np.maximum(power, 0.0)), jnp.asarray(basis)
