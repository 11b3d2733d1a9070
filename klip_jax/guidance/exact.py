"""The exact likelihood score, where the posterior's own denoiser D_y is known:

    grad_x log p(y | x_sigma = x) = (D_y(x, sigma) - D(x, sigma)) / sigma^2.

Analytic priors know it (`Gaussian.posterior`, `Mixture.posterior`); so does a network
that was trained on pairs (x, y).
"""

from flax import struct
from jax import Array

from klip_jax.guidance.base import Measured
from klip_jax.types import Denoiser


@struct.dataclass
class Exact(Measured):
    """The difference of two denoisers.

    Attributes:
      operator, y, noise_std: see `Measured`.
      posterior: D_y, a `Denoiser` of p(x0 | y).
    """

    posterior: Denoiser

    def score(self, denoiser: Denoiser, x: Array, sigma: Array) -> tuple[Array, Array]:
        """Return (D, (D_y - D) / sigma^2); see `types.Likelihood`."""
        x0 = denoiser(x, sigma)
        return x0, (self.posterior(x, sigma) - x0) / sigma**2
