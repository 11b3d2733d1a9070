"""Blur: convolution with a kernel h, each channel by itself.

    y[i] = sum_j h[j] x[i - j],    sum h = 1

A circular boundary continues x periodically: A is diagonal in Fourier space, A = F^-1 H
F, and so is A A^T = F^-1 |H|^2 F. A zero boundary takes x for 0 outside the image: the
same on a larger, zero-padded grid, cropped to the image, and A A^T has no such form.
"""

import math

import chex
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jax import Array
from jaxtyping import Num

from klip_jax.operators.base import Operator
from klip_jax.operators.base_motion import motion_kernel
from klip_jax.types import Image, Scalar

BOUNDARIES = ("circular", "zero")


class _Blur(Operator):
    """Convolve with `kernel` [odd, odd], or [odd] along both axes if that is even."""

    def __init__(self, in_shape: tuple[int, int, int], kernel, boundary: str):
        if boundary not in BOUNDARIES:
            raise ValueError(f"boundary={boundary!r}: must be one of {BOUNDARIES}")
        self.in_shape = self.out_shape = tuple(in_shape)
        self.grid = self.in_shape[:2]
        if boundary == "zero":  # what wraps around must land in the padding
            radius = len(kernel) // 2
            self.grid = tuple(scipy.fft.next_fast_len(n + radius) for n in self.grid)
        rows, columns = self.grid
        if kernel.ndim == 1:  # even, so that its transfer function is real
            across = np.fft.fft(_wrap(kernel, rows)).real
            along = np.fft.rfft(_wrap(kernel, columns)).real
            transfer: np.ndarray = np.outer(across, along)
        else:
            transfer = np.fft.rfft2(_wrap(_wrap(kernel, rows).T, columns).T)
        self.transfer = jnp.asarray(transfer[:, :, None])

    def __call__(self, x: Image) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        return self._filter(x, self.transfer)

    def adjoint(self, y: Num[Array, "..."]) -> Image:
        """Apply A^T, the correlation with h, to `y` [H, W, C]; returns [H, W, C]."""
        return self._filter(y, jnp.conj(self.transfer))

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar
    ) -> Num[Array, "..."]:
        """Solve (variance * A A^T + noise_var * I) u = r, exactly if circular.

        Args:
          r: right-hand side [H, W, C].
          variance: scalar > 0, prior variance of each pixel, squared image units.
          noise_var: scalar > 0, noise variance, squared image units.

        Returns:
          u [H, W, C].
        """
        if self.grid != self.in_shape[:2]:
            return super().solve_gram(r, variance, noise_var)
        power = (self.transfer * jnp.conj(self.transfer)).real
        return self._filter(r, 1 / (variance * power + noise_var))

    def _filter(self, x: Array, transfer: Array) -> Array:
        spectrum = jnp.fft.rfft2(x, self.grid, axes=(0, 1))
        spectrum = transfer.astype(spectrum.dtype) * spectrum
        height, width, _ = self.in_shape
        return jnp.fft.irfft2(spectrum, self.grid, axes=(0, 1))[:height, :width]


class GaussianBlur(_Blur):
    """Convolve each channel with a truncated Gaussian, h[j] ~ exp(-|j|^2 / (2 std^2)).

    Args:
      in_shape: (H, W, C), also the shape of y; y has the unit of x.
      std: standard deviation of the Gaussian, pixels, > 0.
      truncate: the kernel ends at this many standard deviations, > 0; one longer than
        the image wraps around it if circular.
      boundary: "circular" or "zero".

    Raises:
      ValueError: if `std` or `truncate` is not positive, or `boundary` another word.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        std: float = 2.0,
        truncate: float = 4.0,
        boundary: str = "circular",
    ):
        if std <= 0 or truncate <= 0:
            raise ValueError(
                f"std={std}, truncate={truncate}: must be positive; use "
                "identity.Identity for no blur"
            )
        radius = math.ceil(truncate * std)
        weight = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * std**2))
        super().__init__(in_shape, weight / weight.sum(), boundary)


class UniformBlur(_Blur):
    """Convolve each channel with a box: the mean of size x size pixels.

    Args:
      in_shape: (H, W, C), also the shape of y; y has the unit of x.
      size: side of the box, pixels, odd, >= 1; one larger than the image wraps around
        it if circular.
      boundary: "circular" or "zero".

    Raises:
      ValueError: if `size` is not odd and positive, or `boundary` is another word.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        size: int = 5,
        boundary: str = "circular",
    ):
        _check_size(size)
        super().__init__(in_shape, np.full(size, 1 / size), boundary)


class MotionBlur(_Blur):
    """Convolve each channel with the path of a shaken camera, fixed by `seed`.

    The path has constant speed; its direction starts uniformly random and turns by
    theta(t) = bend sqrt(3) int_0^t W, W a Brownian motion, 0 <= t <= 1. It is centred
    and scaled to fill the longer side of the kernel, and shared out among the four
    pixels around each of its points.

    Args:
      in_shape: (H, W, C), also the shape of y; y has the unit of x.
      size: side of the kernel, pixels, odd, >= 1; one larger than the image wraps
        around it if circular.
      bend: root mean square turn from the start to the end, radians, >= 0; 0 is a
        straight line.
      seed: of the path, independent of every other randomness.
      boundary: "circular" or "zero".

    Raises:
      ValueError: if `size` is not odd and positive, `bend` is negative, or `boundary`
        is another word.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        size: int = 15,
        bend: float = 2.0,
        seed: int = 0,
        boundary: str = "circular",
    ):
        _check_size(size)
        if bend < 0:
            raise ValueError(f"bend={bend}: must be >= 0; 0 is a straight line")
        super().__init__(in_shape, motion_kernel(size, bend, seed), boundary)


def _check_size(size: int) -> None:
    if size < 1 or size % 2 != 1:
        raise ValueError(
            f"size={size}: must be odd and >= 1, so that the kernel has a centre; use "
            f"{2 * max(0, round(size / 2)) + 1}"
        )


def _wrap(kernel: np.ndarray, size: int) -> np.ndarray:
    """Lay axis 0 of `kernel` onto a circle [size], its centre at index 0."""
    radius = len(kernel) // 2
    wrapped = np.zeros((size, *kernel.shape[1:]))
    np.add.at(wrapped, np.arange(-radius, radius + 1) % size, kernel)
    return wrapped
