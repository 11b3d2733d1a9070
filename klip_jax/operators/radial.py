"""CT in Fourier space: the cells that radial lines pass through, for parallel beams.

By the Fourier slice theorem a view at angle a is the line k = r (cos a, -sin a) of the
image's spectrum. Its points are rounded to the nearest cell of a grid finer than the
image's own,

    y = S T pad(x),   T the orthonormal real Fourier transform of the E x E grid,

S the cells of the half plane that some line passes through, each as sqrt(2) (Re, Im).
The rows are orthonormal on the grid, S T (S T)^T = I. Where x lives, in a part of it,
A^T A is a convolution: two Fourier transforms of about twice the image, not of E x E.

Reference: Song et al. 2022, section 3 and appendix (CT); Fessler 2010, section IV (the
Toeplitz form of A^T A).
"""

import math

import chex
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jax import Array
from jaxtyping import Complex, Num

from klip_jax.operators.base import Operator
from klip_jax.types import Image


class RadialLines(Operator):
    """Parallel-beam CT as the spectrum on rounded radial lines.

    With D = ceil(sqrt(2) max(H, W)) the grid has E x E cells, E = expansion * D rounded
    down to even; a line has E points, r from -R to R, R = expansion * (D - 1) / 2. The
    angles are i pi / lines; `views` of them are measured, i = round(j (lines - 1) /
    (views - 1)), j = 0, 1, ...

    Args:
      in_shape: (H, W, 1).
      views: lines that are measured, >= 1.
      lines: that the views are taken from, >= views; by default max(H, W), or views if
        that is more.
      expansion: of the grid, >= 1.
      contested: who owns a cell of several lines: "measured" gives it to the measured
        ones; "last" to the line of the largest angle, measured or not, as where all
        lines are written back to the grid one after another.

    `__call__` takes [H, W, 1] and returns [cells, 2] in the unit of x.

    Raises:
      ValueError: if a setting is out of range or the image has several channels.

    Reference: Song et al. 2022, as released with Kheirandish, Hong and Fridovich-Keil
    2026: views=23, lines=H, expansion=4, contested="last". The first and the last view
    are there 180 degrees less one line apart, almost the same.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        views: int = 12,
        lines: int | None = None,
        expansion: float = 4.0,
        contested: str = "measured",
    ):
        height, width, channels = in_shape
        lines = max(height, width, views) if lines is None else lines
        if channels != 1:
            raise ValueError(f"in_shape={in_shape}: CT images have 1 channel")
        if not 1 <= views <= lines:
            raise ValueError(f"views={views}: must be in [1, lines={lines}]")
        if not expansion >= 1:
            raise ValueError(f"expansion={expansion}: must be >= 1, the image's own")
        if contested not in ("measured", "last"):
            raise ValueError(f"contested={contested!r}: must be 'measured' or 'last'")
        diagonal = math.ceil(math.sqrt(2) * max(height, width))
        self.side = int(expansion * diagonal) // 2 * 2
        self.in_shape = tuple(in_shape)

        seen = self._cells(views, lines, expansion * (diagonal - 1) / 2, contested)
        mirrored = np.roll(seen[::-1, ::-1], 1, (0, 1))
        # The spectrum of a real image at -k is that at k: to see one is to see both.
        half = (seen | mirrored)[:, : self.side // 2 + 1]
        rows, columns = np.nonzero(half)
        # Of the two columns that are their own mirror image, the upper half.
        own = columns % (self.side // 2) == 0
        keep = ~own | (rows <= self.side // 2)
        rows, columns, own = rows[keep], columns[keep], own[keep]
        single = own & (rows % (self.side // 2) == 0)
        self.rows, self.columns = jnp.asarray(rows), jnp.asarray(columns)
        weight = np.where(single, 1.0, math.sqrt(2))
        self.weight = jnp.asarray(weight[:, None] / self.side)
        self.out_shape = (len(rows), 2)

        # A^T A: the inverse transform of the cells, at differences of pixels.
        spread = scipy.fft.irfft2(half.astype(np.float64), (self.side, self.side))
        self.grid = tuple(scipy.fft.next_fast_len(2 * n - 1) for n in in_shape[:2])
        lags = [np.arange(1 - n, n) for n in in_shape[:2]]
        kernel = np.zeros(self.grid)
        kernel[np.ix_(*lags)] = spread[np.ix_(*lags)]
        self.transfer = jnp.asarray(np.fft.rfft2(kernel).real[..., None])

    def _cells(self, views, lines, radius, contested):
        """Return which cells are seen [side, side] bool."""
        angles = np.pi * np.arange(lines) / lines
        r = np.linspace(-radius, radius, self.side)
        columns = np.round(np.outer(np.cos(angles), r)).astype(int) % self.side
        rows = np.round(np.outer(-np.sin(angles), r)).astype(int) % self.side
        cells = rows * self.side + columns
        measured = np.unique(np.round(np.linspace(0, lines - 1, views)).astype(int))
        if contested == "measured":
            cells, measured = cells[measured], np.arange(len(measured))
        owner = np.full(self.side**2, -1)
        for line, its in enumerate(cells):
            owner[its] = line
        return np.isin(owner, measured).reshape(self.side, self.side)

    def __call__(self, x: Image) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        spectrum = jnp.fft.rfft2(self._place(x[..., 0]))
        seen = spectrum[self.rows, self.columns]
        both = jnp.stack([seen.real, seen.imag], -1)
        return self.weight.astype(both.dtype) * both

    def normal(self, x: Image) -> Image:
        """Apply A^T A to `x` [H, W, 1] by a convolution; returns [H, W, 1]."""
        chex.assert_shape(x, self.in_shape)
        spectrum = jnp.fft.rfft2(x, self.grid, axes=(0, 1))
        spectrum = self.transfer.astype(spectrum.real.dtype) * spectrum
        height, width, _ = self.in_shape
        return jnp.fft.irfft2(spectrum, self.grid, axes=(0, 1))[:height, :width]

    def from_spectrum(
        self, spectrum: Complex[Array, "side side"]
    ) -> Num[Array, "cells 2"]:
        """Return the measurements [cells, 2] that a spectrum of the grid holds.

        Args:
          spectrum: [side, side] complex, in FFT order, not normalised, for an image
            whose centre is at index 0; need not be Hermitian, that part is taken.
        """
        mirrored = spectrum[-self.rows, -self.columns]
        seen = (spectrum[self.rows, self.columns] + jnp.conj(mirrored)) / 2
        return self.weight * jnp.stack([seen.real, seen.imag], -1)

    def _place(self, image: Array) -> Array:
        """Zero-pad [H, W] to the grid, its centre at index 0, as the lines have it."""
        height, width = image.shape
        pad = [(0, self.side - n) for n in (height, width)]
        return jnp.roll(jnp.pad(image, pad), (-(height // 2), -(width // 2)), (0, 1))
