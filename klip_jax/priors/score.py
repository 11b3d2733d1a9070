"""A network that gives the score of a variance-exploding diffusion, as a denoiser:

    D(x, sigma) = x + sigma^2 s(x, sigma),

Tweedie's formula, in the range of its training.

Reference: docs/theory.md, section 1; Song et al. 2021, eq. 9 and section 3.4
(VE); Robbins 1956 (Tweedie).
"""

from klip_jax import struct
from klip_jax.priors.base import NetworkPrior
from klip_jax.types import Image, Scalar


class Score(NetworkPrior):
    """A denoiser from a network that gives the score of a VE state.

    Attributes and errors are those of `NetworkPrior`; `net.apply(params, x, sigma)` is
    grad log p(x_sigma), and images of its training fill [0, 1] unless `low` says so.
    """

    low: float = struct.field(pytree_node=False, default=0.0)

    def denoise(self, x: Image, sigma: Scalar) -> Image:
        return x + sigma**2 * self.net.apply(self.params, x, sigma)
