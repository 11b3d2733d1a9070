"""Nothing measured: grad log p(y | x_sigma) = 0, the chain draws from the prior."""

from typing import Any

import jax.numpy as jnp

from klip_jax import struct
from klip_jax.types import Denoiser, Image, Scalar


@struct.dataclass
class NoGuidance:
    """The guidance of having measured nothing: its score is zero."""

    def score(
        self, denoiser: Denoiser, scan: Any, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D(x, sigma), 0); the scan is not looked at."""
        return denoiser(x, sigma), jnp.zeros_like(x)
