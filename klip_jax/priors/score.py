"""A network that gives the score of a variance-exploding diffusion, as a denoiser:

    D(x, sigma) = x + a sigma^2 s(a x + b, a sigma),

where images of its training fill [b, a + b]: Tweedie's formula there, back in [0, 1].

Reference: Song et al. 2021, eq. 9 and section 3.4 (VE); Robbins 1956 (Tweedie).
"""

from jax import Array

from klip_jax.priors.base import NetworkPrior


class Score(NetworkPrior):
    """A denoiser from a network that gives the score of a VE state.

    Args:
      params: the network's parameters.
      net: a flax.linen module; `net.apply(params, x, sigma)` is grad log p(x_sigma).
      low: images of its training fill [low, 1]; 0 or -1.
      levels, errors: the table of expected errors; see `NetworkPrior`.

    Raises:
      ValueError: if low is not below 1.
    """

    def __init__(self, params, net, *, low: float = 0.0, levels=(), errors=()):
        if low >= 1:
            raise ValueError(f"low={low}: must be below 1; images fill [low, 1]")
        super().__init__(params, net, levels=levels, errors=errors)
        self.low = float(low)

    def __call__(self, x: Array, sigma: Array, *, key: Array | None = None) -> Array:
        """Return E[x0 | x_sigma = x] for images in [0, 1]; see `types.Denoiser`."""
        width = 1 - self.low
        score = self.net.apply(self.params, width * x + self.low, width * sigma)
        return x + width * sigma**2 * score
