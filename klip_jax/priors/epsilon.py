"""A noise-predicting (DDPM) network as a denoiser, in [-1, 1]:

    D(x, sigma) = x - sigma * eps(alpha x, t),    alpha = 1 / sqrt(1 + sigma^2).

Reference: docs/theory.md, section 1; Ho et al. 2020, eq. 15; Karras et al. 2022,
table 1 (VP column).
"""

from klip_jax.priors.base import VPNetworkPrior
from klip_jax.types import Image, Scalar


class Epsilon(VPNetworkPrior):
    """A denoiser from a network that predicts the noise of a VP state.

    Attributes and errors are those of `VPNetworkPrior`; `net.apply(params, x, t)`
    predicts z of x = alpha (x0 + sigma z).
    """

    def denoise(self, x: Image, sigma: Scalar) -> Image:
        return x - sigma * self.output(x, sigma)
