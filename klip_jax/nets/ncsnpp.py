"""NCSN++, the score network of variance-exploding diffusion.

x [H, W, C] and sigma go in, the score grad log p(x_sigma) comes out:

    s(x, sigma) = F(2 x - 1, ln sigma) / sigma,

with BigGAN residual blocks, FIR resampling, and two pyramids of the image: one of the
input, added to each grid on the way down, one of the output, collected on the way up.

Reference: Song et al. 2021, appendix H (architecture) and appendix C.1 (Fourier
features of ln sigma, division by sigma).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from klip_jax.nets.base import (
    attend,
    check_divides,
    fir_down,
    fir_up,
    fourier_features,
    group_norm,
)


class NCSNpp(nn.Module):
    """Map x [H, W, C] at noise level sigma to the score [H, W, C].

    Parameters are numbered in the order of use, as in the authors' Flax code.

    Attributes:
      width: channels at the finest grid, before its multiplier.
      multipliers: channels over `width` at each grid, finest first.
      blocks: residual blocks at each grid on the way down; one more on the way up.
      attention: grids with self-attention, 0 the finest; the middle always has it.
      taps: of the resampling filter.
      combine: how the input pyramid joins, "sum" or "cat".
      recentre: map x to 2 x - 1 first: images in [0, 1]; False for those in [-1, 1].
    """

    width: int = 128
    multipliers: Sequence[int] = (1, 2, 2, 2)
    blocks: int = 2
    attention: Sequence[int] = ()
    taps: Sequence[float] = (1, 3, 3, 1)
    combine: str = "sum"
    recentre: bool = True

    @nn.compact
    def __call__(self, x: Array, sigma: Array) -> Array:
        if self.combine not in ("sum", "cat"):
            raise ValueError(f"combine={self.combine!r}: must be 'sum' or 'cat'")
        levels, c = len(self.multipliers), x.shape[-1]
        check_divides(x, levels)
        normal = nn.initializers.normal(16.0)
        frequencies = self.param("frequencies", normal, (self.width,))
        embedding = fourier_features(jnp.log(sigma), frequencies)
        embedding = nn.Dense(4 * self.width)(embedding)
        embedding = nn.Dense(4 * self.width)(nn.silu(embedding))

        def block(h, features=0, resample=""):
            return BigGANBlock(features or h.shape[-1], resample, self.taps)(
                h, embedding
            )

        x = 2 * x - 1 if self.recentre else x
        h = nn.Conv(self.width, (3, 3))(x)
        skips, pyramid = [h], x
        for level, multiplier in enumerate(self.multipliers):
            for _ in range(self.blocks):
                h = block(h, self.width * multiplier)
                h = Attention()(h) if level in self.attention else h
                skips.append(h)
            if level < levels - 1:
                h = block(h, resample="down")
                pyramid = fir_down(pyramid, self.taps)
                name, sides = f"combine_{level}", (h.shape[-1], (1, 1))
                own = nn.Conv(*sides, name=name)(pyramid)
                h = own + h if self.combine == "sum" else jnp.concatenate([own, h], -1)
                skips.append(h)

        h = block(Attention()(block(h)))
        out = jnp.zeros((*h.shape[:2], c), h.dtype)
        for level in reversed(range(levels)):
            for _ in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = block(h, self.width * self.multipliers[level])
            h = Attention()(h) if level in self.attention else h
            out = fir_up(out, self.taps) if level < levels - 1 else out
            out += nn.Conv(c, (3, 3))(nn.silu(group_norm(h)))
            h = block(h, resample="up") if level else h
        return out / sigma


class BigGANBlock(nn.Module):
    """Two 3x3 convolutions, the first after the resampling; (x + h) / sqrt(2)."""

    features: int
    resample: str
    taps: Sequence[float]

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        h = nn.silu(group_norm(x))
        if self.resample:
            change = fir_up if self.resample == "up" else fir_down
            h, x = change(h, self.taps), change(x, self.taps)
        h = nn.Conv(self.features, (3, 3))(h)
        h += nn.Dense(self.features)(nn.silu(embedding))
        h = nn.Conv(self.features, (3, 3))(nn.silu(group_norm(h)))
        if self.resample or x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1))(x)
        return (x + h) / jnp.sqrt(2.0)


class Attention(nn.Module):
    """Self-attention of one head over all pixels; (x + h) / sqrt(2)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c, h = x.shape[-1], group_norm(x)
        q, k, v = nn.Dense(c)(h), nn.Dense(c)(h), nn.Dense(c)(h)
        return (x + nn.Dense(c)(attend(q, k, v))) / jnp.sqrt(2.0)
