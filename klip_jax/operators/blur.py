"""Gaussian blur with a circular boundary.

    y = h (*) x = F^-1 (H . F x),    h[j] ~ exp(-|j|^2 / (2 std^2)),    sum h = 1

h is even, so H is real: A is symmetric, and A A^T is H^2 in Fourier space.
"""

import math

import chex
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.operators.base import Operator


class GaussianBlur(Operator):
    """Convolve each channel with a truncated Gaussian, circularly.

    Args:
      in_shape: (H, W, C), also the shape of y; y has the unit of x.
      std: standard deviation of the Gaussian, pixels, > 0.
      truncate: the kernel ends at this many standard deviations, > 0; one longer than
        the image wraps around it.

    Raises:
      ValueError: if `std` or `truncate` is not positive.
    """

    def __init__(
        self, in_shape: tuple[int, int, int], *, std: float = 2.0, truncate: float = 4.0
    ):
        if std <= 0 or truncate <= 0:
            raise ValueError(
                f"std={std}, truncate={truncate}: must be positive; use "
                "identity.Identity for no blur"
            )
        self.in_shape = self.out_shape = tuple(in_shape)
        rows, columns, _ = in_shape
        across = np.fft.fft(_kernel(rows, std, truncate)).real
        along = np.fft.rfft(_kernel(columns, std, truncate)).real
        self.transfer = jnp.asarray(np.outer(across, along)[:, :, None])

    def __call__(self, x: Array) -> Array:
        chex.assert_shape(x, self.in_shape)
        return self._filter(x, self.transfer)

    def adjoint(self, y: Array) -> Array:
        """Apply A^T = A to `y` [H, W, C]; returns [H, W, C]."""
        return self(y)

    def solve_gram(self, r: Array, variance: Array, noise_var: Array) -> Array:
        """Solve exactly in Fourier space, where A A^T is the square of `transfer`.

        Args:
          r: right-hand side [H, W, C].
          variance: scalar > 0, prior variance of each pixel, squared image units.
          noise_var: scalar > 0, noise variance, squared image units.

        Returns:
          u [H, W, C].
        """
        return self._filter(r, 1 / (variance * self.transfer**2 + noise_var))

    def _filter(self, x: Array, transfer: Array) -> Array:
        spectrum = transfer.astype(x.dtype) * jnp.fft.rfft2(x, axes=(0, 1))
        return jnp.fft.irfft2(spectrum, x.shape[:2], axes=(0, 1))


def _kernel(size: int, std: float, truncate: float) -> np.ndarray:
    """Return the 1D kernel [size], its centre at index 0, wrapped onto the circle."""
    radius = math.ceil(truncate * std)
    offset = np.arange(-radius, radius + 1)
    weight = np.exp(-(offset**2) / (2 * std**2))
    kernel = np.zeros(size)
    np.add.at(kernel, offset % size, weight / weight.sum())
    return kernel
