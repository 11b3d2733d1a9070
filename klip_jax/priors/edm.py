"""The EDM preconditioning of a network F, in [-1, 1]:

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise),
    c_skip = s^2 / (sigma^2 + s^2),    c_out = sigma s / sqrt(sigma^2 + s^2),
    c_in = 1 / sqrt(sigma^2 + s^2),    c_noise = ln(sigma) / 4,    s = sigma_data.

Reference: Karras et al. 2022, eq. 7 and table 1.
"""

import jax.numpy as jnp
from jax import Array

from klip_jax.priors.base import NetworkPrior


class EDM(NetworkPrior):
    """A denoiser from an EDM-preconditioned network.

    Args:
      params: the network's parameters.
      net: a flax.linen module; `net.apply(params, x, noise_level)`.
      sigma_data: standard deviation of the data in [-1, 1], > 0.
      levels, errors: the table of expected errors; see `NetworkPrior`.

    Raises:
      ValueError: if sigma_data is not positive.
    """

    def __init__(self, params, net, *, sigma_data: float = 0.5, levels=(), errors=()):
        if sigma_data <= 0:
            raise ValueError(f"sigma_data must be positive, got {sigma_data}")
        super().__init__(params, net, levels=levels, errors=errors)
        self.sigma_data = sigma_data

    def denoise(self, x: Array, sigma: Array) -> Array:
        total = jnp.sqrt(sigma**2 + self.sigma_data**2)
        f = self.net.apply(self.params, x / total, jnp.log(sigma) / 4)
        return (self.sigma_data / total) ** 2 * x + sigma * self.sigma_data / total * f
