"""A noise-predicting (DDPM) network as a denoiser, in [-1, 1]:

    D(x, sigma) = x - sigma * eps(alpha x, t),    alpha = 1 / sqrt(1 + sigma^2).

Reference: Ho et al. 2020, eq. 15; Karras et al. 2022, table 1 (VP column).
"""

from jax import Array

from klip_jax.priors.base import VPNetworkPrior


class Epsilon(VPNetworkPrior):
    """A denoiser from a network that predicts the noise of a VP state.

    Arguments and errors are those of `VPNetworkPrior`; `net.apply(params, x, t)`
    predicts z of x = alpha (x0 + sigma z).
    """

    def denoise(self, x: Array, sigma: Array) -> Array:
        return x - sigma * self.output(x, sigma)
