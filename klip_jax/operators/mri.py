"""Single-coil Cartesian MRI: some lines of k-space.

    y = (Re, Im) of S F x,   F the orthonormal 2D Fourier transform, S the kept lines

y is real, [..., 2], so noise_std is per real component. The lines come in pairs (k,
-k). Then, with P the projection on Hermitian k-space, (P y)(k) = (y(k) + conj
y(-k)) / 2,

    A A^T = P  for real images,       A A^T = I  for complex ones,

because the two lines of a pair measure a real image twice, each with noise of its own.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.operators.base import Operator


class Cartesian(Operator):
    """Undersampled Cartesian MRI: whole columns of k-space, the rest is not measured.

    The columns |k| <= c // 2 are always kept, c = round(centre * W). The others are
    drawn from `seed` as pairs (k, -k), uniformly, while round(W / acceleration) columns
    are not exceeded. The draw may so end one column short.

    Args:
      in_shape: (H, W, 1) for real images, (H, W, 2) for complex ones as (Re, Im).
      acceleration: W over the number of kept columns, >= 1.
      centre: fraction of the columns that is always kept, in [0, 1]; at least k = 0.
      seed: of the drawn columns, independent of every other randomness.

    `__call__` takes [H, W, 1 or 2] and returns [H, kept, 2] in the unit of x; `lines`
    [kept] are the kept columns in FFT order.

    Raises:
      ValueError: if a setting is out of range, or the centre alone exceeds the budget.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        acceleration: float = 4.0,
        centre: float = 0.08,
        seed: int = 0,
    ):
        height, width, channels = in_shape
        if channels not in (1, 2):
            raise ValueError(
                f"in_shape={in_shape}: channels must be 1 (real) or 2 (Re, Im)"
            )
        if acceleration < 1 or not 0 <= centre <= 1:
            raise ValueError(
                f"acceleration={acceleration}, centre={centre}: need acceleration >= 1 "
                "and centre in [0, 1]"
            )
        lines = _draw_lines(width, round(width / acceleration), centre, seed)
        self.lines = jnp.asarray(lines)
        self.mirror = jnp.asarray(np.searchsorted(lines, -lines % width))
        self.in_shape = (height, width, channels)
        self.out_shape = (height, len(lines), 2)

    def __call__(self, x: Array) -> Array:
        chex.assert_shape(x, self.in_shape)
        image = x[..., 0] if x.shape[-1] == 1 else jax.lax.complex(x[..., 0], x[..., 1])
        k = jnp.fft.fft2(image, norm="ortho")[:, self.lines]
        return jnp.stack([k.real, k.imag], axis=-1)

    def solve_gram(self, r: Array, variance: Array, noise_var: Array) -> Array:
        """Solve exactly: A A^T is the projection P of the module's docstring, or I.

            u = P r / (variance + noise_var) + (r - P r) / noise_var

        Args:
          r: right-hand side [H, kept, 2].
          variance: scalar > 0, prior variance of each real pixel, squared image units.
          noise_var: scalar > 0, noise variance of each real component, same unit.

        Returns:
          u [H, kept, 2].
        """
        if self.in_shape[-1] == 2:
            return r / (variance + noise_var)
        mirrored = jnp.roll(r[::-1], 1, axis=0)[:, self.mirror]
        hermitian = (r + mirrored * jnp.array([1, -1], r.dtype)) / 2
        return hermitian / (variance + noise_var) + (r - hermitian) / noise_var

    def naive_inverse(self, y: Array) -> Array:
        """Return the zero-filled inverse Fourier transform of `y`; [H, W, 1 or 2]."""
        return self.adjoint(y)


def _draw_lines(width: int, budget: int, centre: float, seed: int) -> np.ndarray:
    """Return the sorted kept columns in FFT order, closed under k -> -k."""
    half = round(centre * width) // 2
    kept = np.unique(np.arange(-half, half + 1) % width)
    if len(kept) > budget:
        raise ValueError(
            f"centre={centre} keeps {len(kept)} of {width} columns, the acceleration "
            f"allows {budget}: must not exceed it; lower one of the two"
        )
    for k in np.random.default_rng(seed).permutation(
        np.arange(half + 1, width // 2 + 1)
    ):
        pair = np.unique([k, -k % width])  # one column where k is its own mirror
        if len(kept) + len(pair) <= budget:
            kept = np.append(kept, pair)
    return np.sort(kept)
