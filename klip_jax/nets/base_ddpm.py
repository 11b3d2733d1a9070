"""Blocks of the DDPM network as its first PyTorch versions have them.

A residual block is x + W2 silu(N2(W1 silu(N1(x)) + V silu(e))); attention has one head
and 1x1 convolutions; a grid is halved by a 3x3 convolution of stride 2 that sees one
row and column of zeros at the bottom and right only, and doubled by repetition and a
3x3 convolution.

Reference: Ho et al. 2020, appendix B; Esser et al. 2021, section 3.1 (without e).
"""

import flax.linen as nn
import jax
from jax import Array

from klip_jax.nets.base import attend, group_norm

GROUPS, EPSILON = 32, 1e-6


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, e added between them where there is one.

    Attributes:
      features: channels of the result.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array, e: Array | None = None) -> Array:
        c = self.features
        h = nn.Conv(c, (3, 3), name="conv1")(nn.silu(norm(x, "norm1")))
        if e is not None:
            h = h + nn.Dense(c, name="temb_proj")(nn.silu(e))
        h = nn.Conv(c, (3, 3), name="conv2")(nn.silu(norm(h, "norm2")))
        if x.shape[-1] != c:
            x = nn.Conv(c, (1, 1), name="nin_shortcut")(x)
        return x + h


class Attention(nn.Module):
    """Self-attention over all pixels with one head, plus x."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c, h = x.shape[-1], norm(x, "norm")
        q, k, v = (nn.Conv(c, (1, 1), name=name)(h) for name in ("q", "k", "v"))
        return x + nn.Conv(c, (1, 1), name="proj_out")(attend(q, k, v))


def middle(h: Array, e: Array | None = None) -> Array:
    """Return a residual block, attention, a residual block; in a compact module."""
    c = h.shape[-1]
    h = Attention(name="mid_attn_1")(ResidualBlock(c, name="mid_block_1")(h, e))
    return ResidualBlock(c, name="mid_block_2")(h, e)


def halved(h: Array, name: str) -> Array:
    """Return [H / 2, W / 2, C] by a convolution; in a compact module."""
    padding = ((0, 1), (0, 1))
    return nn.Conv(h.shape[-1], (3, 3), strides=2, padding=padding, name=name)(h)


def doubled(h: Array, name: str) -> Array:
    """Return [2 H, 2 W, C] by repetition and a convolution; in a compact module."""
    height, width, c = h.shape
    h = jax.image.resize(h, (2 * height, 2 * width, c), "nearest")
    return nn.Conv(c, (3, 3), name=name)(h)


def norm(x: Array, name: str) -> Array:
    """Normalise `x` [H, W, C] in 32 groups."""
    return group_norm(x, groups=GROUPS, epsilon=EPSILON, name=name)
