"""The U-Net of latent diffusion, told the class by cross-attention.

Attention is a transformer over the pixels of one grid,

    x <- x + A(N1(x), N1(x)),    x <- x + A(N2(x), c),
    x <- x + W (v * gelu(g)),    [v, g] = V N3(x),

between two 1x1 convolutions, plus its input; A(a, b) takes its queries from a and its
keys and values from b. The context c is one row of a table, that of the class, or any
tokens that are given. With one token the softmax over c is 1.

Reference: Rombach et al. 2022, section 3.3 and appendix E.2.1; Shazeer 2020 (the gated
layer, with the exact gelu).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.nets.base_adm import (
    Grids,
    ResidualBlock,
    doubled,
    embed,
    heads_of,
    norm,
    walk,
)

WIDENING = 4
"""Channels between the two layers after attention, over those of the grid."""


class LatentUNet(nn.Module):
    """Map z [h, w, c] at a timestep, and a label, to the noise in it [h, w, c].

    The defaults are those of cin256-v2.

    Attributes:
      width: channels at a multiplier of 1; a multiple of 32.
      multipliers: channels over `width` at each grid, finest first.
      blocks: residual blocks at each grid on the way down; one more on the way up.
      attention: grids with a transformer after each residual block; the middle has it.
      head_channels: channels of a head of attention; 0 for one head.
      depth: attentions of each kind in a transformer.
      classes: labels are 0 .. classes - 1; `classes`, or None, is the null label.
      null_class: whether the table has a row for the null label.
      context: length of a token.

    Raises:
      ValueError: if the sides of z are not multiples of its coarsest grid, heads do not
        divide channels, or the label is None and there is no null class.

    Reference: Rombach et al. 2022, section 3.3 and appendix E.2.1.
    """

    width: int = 192
    multipliers: Sequence[int] = (1, 2, 3, 5)
    blocks: int = 2
    attention: Sequence[int] = (1, 2, 3)
    head_channels: int = 0
    depth: int = 1
    classes: int = 1000
    null_class: bool = True
    context: int = 512

    @nn.compact
    def __call__(
        self,
        z: Array,
        timestep: Array | float,
        label: Array | int | None = None,
        *,
        tokens: Array | None = None,
    ) -> Array:
        if tokens is None:
            table = nn.Embed(self.classes + self.null_class, self.context, name="label")
            tokens = table(jnp.asarray([self._row(label)]).reshape(1))
        e = embed(timestep, self.width)

        def transformer(h, name):
            return Transformer(self.head_channels, self.depth, name=name)(h, tokens)

        return walk(
            z,
            Grids(self.width, self.multipliers, self.blocks, self.attention),
            block=lambda h, c, name: ResidualBlock(c, False, name=name)(h, e),
            attention=transformer,
            change=lambda h, way, name: Resample(way, name=name)(h),
            out_channels=z.shape[-1],
        )

    def _row(self, label):
        if label is not None:
            return label
        if not (self.null_class or self.is_initializing()):
            raise ValueError(
                "label=None: this network was trained with a class always; give one of "
                f"its {self.classes}"
            )
        return self.classes if self.null_class else 0


class Transformer(nn.Module):
    """Attention over the pixels and to the tokens, plus its input."""

    head_channels: int
    depth: int

    @nn.compact
    def __call__(self, x: Array, tokens: Array) -> Array:
        height, width, c = x.shape
        h = nn.Conv(c, (1, 1), name="proj_in")(norm(x, "norm", epsilon=1e-6))
        h, heads = h.reshape(height * width, c), heads_of(c, self.head_channels)
        for i in range(self.depth):
            h = Block(heads, name=f"transformer_blocks_{i}")(h, tokens)
        h = nn.Conv(c, (1, 1), name="proj_out")(h.reshape(x.shape))
        return x + h


class Block(nn.Module):
    """Self-attention, cross-attention and a gated layer over h [pixels, C]."""

    heads: int

    @nn.compact
    def __call__(self, h: Array, tokens: Array) -> Array:
        n = _layer_norm(h, "norm1")
        h = h + CrossAttention(self.heads, name="attn1")(n, n)
        n = _layer_norm(h, "norm2")
        h = h + CrossAttention(self.heads, name="attn2")(n, tokens)
        c = h.shape[-1]
        wide = nn.Dense(2 * WIDENING * c, name="ff_in")(_layer_norm(h, "norm3"))
        value, gate = jnp.split(wide, 2, -1)
        value = value * nn.gelu(gate, approximate=False)
        return h + nn.Dense(c, name="ff_out")(value)


class CrossAttention(nn.Module):
    """A(a, b) of a [S, C] and b [T, C']: [S, C]."""

    heads: int

    @nn.compact
    def __call__(self, a: Array, b: Array) -> Array:
        c = a.shape[-1]

        def split(source, name):
            h = nn.Dense(c, use_bias=False, name=name)(source)
            return h.reshape(len(source), self.heads, c // self.heads)

        q, k, v = split(a, "to_q"), split(b, "to_k"), split(b, "to_v")
        logits = jnp.einsum("qhc,khc->hqk", q, k) / (c // self.heads) ** 0.5
        h = jnp.einsum("hqk,khc->qhc", jax.nn.softmax(logits), v)
        return nn.Dense(c, name="to_out_0")(h.reshape(a.shape))


class Resample(nn.Module):
    """A strided 3x3 convolution, or one after doubling the grid."""

    way: str

    @nn.compact
    def __call__(self, h: Array) -> Array:
        c = h.shape[-1]
        if self.way == "down":
            return nn.Conv(c, (3, 3), strides=2, padding=1, name="op")(h)
        return nn.Conv(c, (3, 3), name="conv")(doubled(h))


def _layer_norm(h, name):
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)(h)
