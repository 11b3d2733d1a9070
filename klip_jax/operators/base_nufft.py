"""The Fourier transform at any frequency: a fine grid, and a kernel between its points.

    X(k) = sum_r x(r) exp(-2 pi i k . r)
         ~ sum_g phi(G k - g) FFT_G [ x / phi^ ](g),   |G k - g| <= WIDTH / 2,

with r counted from pixel n // 2, G = 2 n and the Kaiser-Bessel kernel

    phi(t) = I0(beta sqrt(1 - (2 t / WIDTH)^2)) / I0(beta),
    phi^(f) = WIDTH / I0(beta) sinh(s) / s,   s^2 = beta^2 - (pi WIDTH f)^2.

The frequencies are fixed, so that indices and weights are made once; the adjoint is the
transpose of what is written here.

Reference: Fessler and Sutton 2003, "Nonuniform fast Fourier transforms using min-max
interpolation"; Beatty, Nishimura and Pauly 2005 (beta).
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Complex, Float, Num

from klip_jax import struct

WIDTH, FINER = 7, 2
BETA = np.pi * np.sqrt((WIDTH / FINER * (FINER - 0.5)) ** 2 - 0.8)


@struct.dataclass
class Axis:
    """One axis of the transform.

    Attributes:
      index: of the grid points that a frequency is made of [samples, WIDTH].
      weight: of them, the same shape.
      flat: what the image is multiplied with first [n].
    """

    index: Array
    weight: Array
    flat: Array


def axis(k: Float[np.ndarray, " samples"], n: int) -> Axis:
    """Return what transforms an axis of `n` pixels to `k`, cycles per pixel."""
    grid = FINER * n
    place = k * grid
    near = np.ceil(place - WIDTH / 2)[:, None] + np.arange(WIDTH)
    t = np.clip(1 - (2 * (place[:, None] - near) / WIDTH) ** 2, 0, None)
    weight = np.i0(BETA * np.sqrt(t)) / np.i0(BETA)
    f = (np.arange(n) - n // 2) / grid
    s = np.sqrt(BETA**2 - (np.pi * WIDTH * f) ** 2)  # > 0: |f| <= 1/4
    flat = np.i0(BETA) * s / (WIDTH * np.sinh(s))
    index = near.astype(int) % grid
    return Axis(jnp.asarray(index), jnp.asarray(weight), jnp.asarray(flat))


def transform(
    x: Num[Array, "*b h w"], rows: Axis, columns: Axis
) -> Complex[Array, "*b s"]:
    """Return X at the frequencies of the two axes, one each of all samples."""
    real = jnp.finfo(x.dtype).dtype
    height, width = x.shape[-2:]
    x = x * (rows.flat[:, None] * columns.flat).astype(real)
    pad = [(0, 0)] * (x.ndim - 2) + [(0, (FINER - 1) * n) for n in (height, width)]
    x = jnp.roll(jnp.pad(x, pad), (-(height // 2), -(width // 2)), (-2, -1))
    fine = jnp.fft.fft2(x)
    near = fine[..., rows.index[:, :, None], columns.index[:, None, :]]
    weight = (rows.weight[:, :, None] * columns.weight[:, None, :]).astype(real)
    return (near * weight).sum((-2, -1))


def density(
    rows: Axis, columns: Axis, steps: int = 12
) -> Float[np.ndarray, " samples"]:
    """Return weights that make the samples, spread by the kernel, even: w = w / (C w).

    Reference: Pipe and Menon 1999, Magn. Reson. Med. 41(1).
    """
    grid = tuple(FINER * len(axis.flat) for axis in (rows, columns))
    index = (
        np.asarray(rows.index)[:, :, None] * grid[1]
        + np.asarray(columns.index)[:, None, :]
    )
    weight = np.asarray(rows.weight)[:, :, None] * np.asarray(columns.weight)[:, None]
    w = np.ones(len(index))
    for _ in range(steps):
        total = np.bincount(
            index.ravel(), (w[:, None, None] * weight).ravel(), grid[0] * grid[1]
        )
        w = w / (weight * total[index]).sum((1, 2))
    return w / w.max()
