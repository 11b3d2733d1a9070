"""The U-Net of guided diffusion (ADM), without classes.

It predicts the noise of a variance-preserving state and, beside it, how the variance of
an ancestral step lies between its bounds. Grids change in residual blocks, by 2x2 means
and the nearest neighbour; the timestep scales and shifts. Attention is

    x + P softmax(q k^T / sqrt(c)) v,    [q, k, v] = N(x) Q,

in heads of c channels, the q, k and v of one head side by side in Q's result.

Reference: Dhariwal and Nichol 2021, section 3; Nichol and Dhariwal 2021,
eq. 15 (the second half of the output).
"""

from collections.abc import Sequence

import flax.linen as nn
from jax import Array

from klip_jax.nets.base import attend
from klip_jax.nets.base_adm import Grids, ResidualBlock, embed, heads_of, norm, walk


class ADM(nn.Module):
    """Map x [H, W, C] at a timestep to the noise in it [H, W, C].

    `apply(params, x, t, method="both")` gives all `out_channels`: the noise, then the
    interpolation of the variance, which deterministic samplers do not use. The defaults
    are those of 256x256_diffusion_uncond.pt.

    Attributes:
      width: channels at a multiplier of 1; a multiple of 32.
      multipliers: channels over `width` at each grid, finest first.
      blocks: residual blocks at each grid on the way down; one more on the way up.
      attention: grids with attention after each residual block; the middle has it.
      head_channels: channels of a head of attention; 0 for one head.
      out_channels: of `both`; 0 for as many as x has.

    Raises:
      ValueError: if the sides of x are not multiples of its coarsest grid, or heads do
        not divide channels.

    Reference: Dhariwal and Nichol 2021, section 3 and appendix I.
    """

    width: int = 256
    multipliers: Sequence[int] = (1, 1, 2, 2, 4, 4)
    blocks: int = 2
    attention: Sequence[int] = (3, 4, 5)
    head_channels: int = 64
    out_channels: int = 6

    def __call__(self, x: Array, timestep: Array | float) -> Array:
        return self.both(x, timestep)[..., : x.shape[-1]]

    @nn.compact
    def both(self, x: Array, timestep: Array | float) -> Array:
        """Return the noise and what follows it [H, W, out_channels]."""
        e = embed(timestep, self.width)

        def block(h, features, name, resample=""):
            return ResidualBlock(features, True, resample, name=name)(h, e)

        return walk(
            x,
            Grids(self.width, self.multipliers, self.blocks, self.attention),
            block=block,
            attention=lambda h, name: Attention(self.head_channels, name=name)(h),
            change=lambda h, way, name: block(h, h.shape[-1], name, way),
            out_channels=self.out_channels or x.shape[-1],
        )


class Attention(nn.Module):
    """Self-attention over all pixels, plus x."""

    head_channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width, c = x.shape
        heads = heads_of(c, self.head_channels)
        h = nn.Dense(3 * c, name="qkv")(norm(x, "norm"))
        h = h.reshape(height, width, heads, 3, c // heads)
        q, k, v = (h[..., i, :].reshape(x.shape) for i in range(3))
        return x + nn.Dense(c, name="proj_out")(attend(q, k, v, heads=heads))
