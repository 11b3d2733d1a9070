"""The exact likelihood score, where the posterior's own denoiser D_y is known:

    grad_x log p(y | x_sigma = x) = (D_y(x, sigma) - D(x, sigma)) / sigma^2.

Analytic priors know it (`Gaussian.posterior`, `Mixture.posterior`); so does a network
that was trained on pairs (x, y).
"""

from typing import Any

from klip_jax import struct
from klip_jax.types import Denoiser, Image, Scalar


@struct.dataclass
class Exact:
    """The difference of two denoisers.

    Attributes:
      posterior: D_y, a `Denoiser` of p(x0 | y); it knows y, the scan is not looked at.
    """

    posterior: Denoiser

    def score(
        self, denoiser: Denoiser, scan: Any, x: Image, sigma: Scalar
    ) -> tuple[Image, Image]:
        """Return (D, (D_y - D) / sigma^2); see `types.Guidance`."""
        x0 = denoiser(x, sigma)
        return x0, (self.posterior(x, sigma) - x0) / sigma**2
