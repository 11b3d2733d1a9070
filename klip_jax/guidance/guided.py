"""A denoiser made of a denoiser and a guidance:

    D_y(x, sigma) = D(x, sigma) + sigma^2 g(x, sigma),   g = grad log p(y | x_sigma),

Tweedie's formula for the posterior. What takes a prior takes this: a sampler draws from
p(x0 | y), an estimator compares with it.

Reference: docs/theory.md, section 8; Efron 2011, eq. 1.4 (Tweedie).
"""

from typing import Any

from klip_jax import struct
from klip_jax.types import Denoiser, Guidance, Image, Scalar


@struct.dataclass
class Guided:
    """The denoiser of what is left after measuring.

    Attributes:
      denoiser: D, the prior.
      guidance: g.
      scan: what was measured.
    """

    denoiser: Denoiser
    guidance: Guidance
    scan: Any

    def __call__(self, x: Image, sigma: Scalar) -> Image:
        """Return D + sigma^2 g; see `types.Denoiser`."""
        x0, score = self.guidance.score(self.denoiser, self.scan, x, sigma)
        return x0 + sigma**2 * score

    def variance(self, sigma: Scalar) -> Scalar:
        """Return that of the inner denoiser, an upper bound in the mean over y."""
        return self.denoiser.variance(sigma)
