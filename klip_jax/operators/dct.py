"""Compressed sensing: some coefficients of the discrete cosine transform.

    y = S D x,   D the orthonormal 2D DCT-II of each channel, S the kept coefficients

D D^T = I and S S^T = I, so A A^T = I.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import jax.scipy.fft
import numpy as np
from jax import Array
from jaxtyping import Num

from klip_jax.operators.base import Operator
from klip_jax.types import Image, Scalar

# One program each: outside jit they would be dozens of small ones.
_dct = jax.jit(functools.partial(jax.scipy.fft.dctn, axes=(0, 1), norm="ortho"))
_idct = jax.jit(functools.partial(jax.scipy.fft.idctn, axes=(0, 1), norm="ortho"))


class SubsampledDCT(Operator):
    """Measure a share of the DCT coefficients: the lowest, and a random draw.

    Coefficient (u, v) has the frequency |(u / H, v / W)|. The round(low * H * W)
    lowest are always kept; the others are drawn from `seed`, uniformly.

    Args:
      in_shape: (H, W, C).
      keep: share of the H * W coefficients that is kept, in (0, 1]; at least one.
      low: share of the H * W coefficients that is always kept, in [0, keep]; at least
        the mean.
      seed: of the draw, independent of every other randomness.

    `__call__` takes [H, W, C] and returns [kept, C] in the unit of x; `coefficients`
    [kept] are their indices u * W + v, the same in all channels.

    Raises:
      ValueError: if `keep` or `low` is out of range.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        keep: float = 0.25,
        low: float = 0.02,
        seed: int = 0,
    ):
        if not 0 < keep <= 1 or not 0 <= low <= keep:
            raise ValueError(
                f"keep={keep}, low={low}: need keep in (0, 1] and low in [0, keep]; "
                "both are shares of all coefficients"
            )
        height, width, channels = in_shape
        u, v = np.mgrid[:height, :width]
        rising = np.argsort(
            ((u / height) ** 2 + (v / width) ** 2).ravel(), kind="stable"
        )
        kept, always = (max(1, round(share * rising.size)) for share in (keep, low))
        drawn = np.random.default_rng(seed).permutation(rising[always:])
        chosen = np.append(rising[:always], drawn[: kept - always])
        self.coefficients = jnp.asarray(np.sort(chosen))
        self.in_shape = (height, width, channels)
        self.out_shape = (kept, channels)

    def __call__(self, x: Image) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        spectrum = _dct(x).reshape(-1, self.in_shape[-1])
        return spectrum.at[self.coefficients].get(
            mode="promise_in_bounds", unique_indices=True, indices_are_sorted=True
        )

    def adjoint(self, y: Num[Array, "..."]) -> Image:
        """Apply D^T S^T to `y` [kept, C], the rest taken for 0; returns [H, W, C]."""
        height, width, channels = self.in_shape
        spectrum = jnp.zeros((height * width, channels), y.dtype)
        spectrum = spectrum.at[self.coefficients].set(y).reshape(self.in_shape)
        return _idct(spectrum)

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar
    ) -> Num[Array, "..."]:
        """Solve exactly: A A^T = I, so u = r / (variance + noise_var), [kept, C]."""
        return r / (variance + noise_var)
