"""The EDM preconditioning of a network F, in [-1, 1]:

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise),
    c_skip = s^2 / (sigma^2 + s^2),    c_out = sigma s / sqrt(sigma^2 + s^2),
    c_in = 1 / sqrt(sigma^2 + s^2),    c_noise = ln(sigma) / 4,    s = sigma_data.

Reference: docs/theory.md, section 1; Karras et al. 2022, eq. 7 and table 1.
"""

import jax.numpy as jnp

from klip_jax.priors.base import NetworkPrior
from klip_jax.types import Image, Scalar


class EDM(NetworkPrior):
    """A denoiser from an EDM-preconditioned network.

    Attributes and errors are those of `NetworkPrior`; `net.apply(params, x, c_noise)`.
    """

    def denoise(self, x: Image, sigma: Scalar) -> Image:
        total = jnp.sqrt(sigma**2 + self.sigma_data**2)
        f = self.net.apply(self.params, x / total, jnp.log(sigma) / 4)
        return (self.sigma_data / total) ** 2 * x + sigma * self.sigma_data / total * f
