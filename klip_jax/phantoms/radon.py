"""Parallel-beam line integrals and their inverse, for what only a scanner makes.

    (R mu)[k, t] = sum over the ray at angle k and distance t of mu, in pixel lengths
    mu ~ pi / A sum_k (ramp * R mu)[k, t of the pixel]

Images and rows are sampled linearly: not the discretisation of `operators.ct`, with
which the images are measured.

Reference: Kak and Slaney 1988, eq. 3.61 for the ramp.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.ndimage import map_coordinates


def _angles(size):
    """Views over half a turn, 1.5 a pixel of the side: cosines and sines [A]."""
    angles = np.arange(3 * size // 2) * np.pi / (3 * size // 2)
    return jnp.array(np.cos(angles)), jnp.array(np.sin(angles))


def _bins(size):
    """Detector bins of one pixel across the diagonal, centred on the image [T]."""
    half = int(np.ceil(size / np.sqrt(2)))
    return jnp.arange(-half, half + 1.0)


def line_integrals(image: Array) -> Array:
    """Project an image [H, W] along parallel rays: [A, T], in pixel lengths."""
    size = len(image)
    t = _bins(size)
    middle = (size - 1) / 2

    def view(angle):
        cos, sin = angle
        x = cos * t[:, None] - sin * t + middle
        y = sin * t[:, None] + cos * t + middle
        return map_coordinates(image, [y, x], order=1).sum(1)

    return jax.lax.map(view, _angles(size))


def back_projection(sinogram: Array, size: int) -> Array:
    """Invert line integrals [A, T] by filtered back-projection: an image [H, W]."""
    t = _bins(size)
    n = np.subtract.outer(np.arange(len(t)), np.arange(len(t)))
    odd = np.where(n % 2, n, 1)
    ramp = np.where(n == 0, 0.25, np.where(n % 2, -1.0 / (np.pi * odd) ** 2, 0.0))
    filtered = jnp.matmul(sinogram, jnp.float32(ramp), precision="highest")
    grid = jnp.arange(size) - (size - 1) / 2

    def add_view(image, view):
        row, cos, sin = view
        where = cos * grid + sin * grid[:, None] - t[0]
        return image + map_coordinates(row, [where], order=1), None

    image = jnp.zeros((size, size), sinogram.dtype)
    image, _ = jax.lax.scan(add_view, image, (filtered, *_angles(size)))
    return image * np.pi / len(sinogram)
