"""A denoiser whose estimates stay in the range of images.

    D'(x, sigma) = clip(D(x, sigma), low, high)

Samplers of the DDPM family clip the estimate before each step and take the noise that
goes with it, (x - D') / sigma; what a guidance adds to D' afterwards is not clipped
again. This is the one place where that is done. What looks at the network's own
estimate, as the guidance of a classifier, asks `before_and_after`.

Reference: Ho et al. 2020 and Dhariwal and Nichol 2021, in their releases
(`clip_denoised`).
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Int

from klip_jax import struct
from klip_jax.types import Denoiser, Image, Scalar


@struct.dataclass
class Clipped:
    """A denoiser, clipped.

    Attributes:
      denoiser: D, also a `types.Conditional`.
      low, high: the range of images.
    """

    denoiser: Any
    low: Scalar = 0.0
    high: Scalar = 1.0

    def __call__(self, x: Image, sigma: Scalar) -> Image:
        """Return the clipped estimate; see `types.Denoiser`."""
        return before_and_after(self, x, sigma)[1]

    def variance(self, sigma: Scalar) -> Scalar:
        """Return that of D, an upper bound."""
        return self.denoiser.variance(sigma)

    def given(self, label: Int[Any, ""] | int | None) -> "Clipped":
        """Return the denoiser of one class, clipped; see `types.Conditional`."""
        return self.replace(denoiser=self.denoiser.given(label))  # type: ignore


def before_and_after(
    denoiser: Denoiser, x: Image, sigma: Scalar
) -> tuple[Image, Image]:
    """Return the estimate before and after clipping, of one network call.

    Args:
      denoiser: clips or not; without clipping both are the same.
      x: the state, image units.
      sigma: its noise level, image units.
    """
    if not isinstance(denoiser, Clipped):
        x0 = denoiser(x, sigma)
        return x0, x0
    x0 = denoiser.denoiser(x, sigma)
    return x0, jnp.clip(x0, denoiser.low, denoiser.high)
