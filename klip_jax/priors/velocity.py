"""A velocity-predicting network as a denoiser, in [-1, 1]:

    D(x, sigma) = alpha^2 x - alpha sigma v(alpha x, t),  alpha = 1 / sqrt(1 + sigma^2),

because the target in the VP state x_t = alpha (x0 + sigma z) is v = alpha z - alpha
sigma x0.

Reference: docs/theory.md, section 1; Salimans and Ho 2022, section 4 and appendix D.
"""

import jax.numpy as jnp

from klip_jax.priors.base import VPNetworkPrior
from klip_jax.types import Image, Scalar


class Velocity(VPNetworkPrior):
    """A denoiser from a network that predicts the velocity of a VP state.

    Attributes and errors are those of `VPNetworkPrior`; `net.apply(params, x, t)`
    predicts alpha z - alpha sigma x0 of x = alpha (x0 + sigma z).
    """

    def denoise(self, x: Image, sigma: Scalar) -> Image:
        alpha = 1 / jnp.sqrt(1 + sigma**2)
        return alpha**2 * x - alpha * sigma * self.output(x, sigma)
