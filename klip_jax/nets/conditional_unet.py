"""A U-Net that is told a class: DDPM++ in small, with adaptive normalisation.

x [H, W, C], c_noise and a label go in, F [H, W, C] comes out. What the blocks see is

    e = silu(W_2 silu(W_1 gamma(c_noise)) + L_label),    L_null = 0,

gamma: sinusoids; so that the null label adds nothing. In a residual block e scales and
shifts each channel k of group g after its normalisation,

    h_k -> (1 + scale_k(e)) (h_k - mean_g) / sqrt(var_g + epsilon) + shift_k(e).

It computes in the dtype of x and the parameters; the encoding of the noise level and
all statistics are float32.

Reference: Dhariwal and Nichol 2021, section 3.1 (adaptive normalisation, heads of 64
channels); Ho and Salimans 2021, section 3.1 (null label); Karras et al. 2022, appendix
F.2 (a label dropped is a row of zeros; sums over sqrt(2)). Unlike theirs, grids are
halved by a strided convolution and doubled by repetition, without a block of their own.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.nets.base import attend, check_divides, fourier_features

FREQUENCIES = tuple(2.0**i for i in range(-4, 4))
"""Of c_noise = ln(sigma) / 4, in turns."""


class ConditionalUNet(nn.Module):
    """Map x [H, W, C] at noise level c_noise, and a label, to [H, W, C].

    Attributes:
      channels: width at each grid, finest first; each next grid is half as fine.
      blocks: residual blocks at each grid, on the way down and on the way up.
      attention: grids with one self-attention each way; the middle always has it.
      classes: labels are 0 .. classes - 1; `classes`, or None, is the null label.
      embedding: length of e.

    Raises:
      ValueError: if the sides of x are not multiples of its coarsest grid, or there
        are not as many `blocks` as `channels`.

    Reference: Dhariwal and Nichol 2021, section 3.1.
    """

    channels: Sequence[int] = (64, 128, 192)
    blocks: Sequence[int] = (2, 2, 2)
    attention: Sequence[int] = (1,)
    classes: int = 10
    embedding: int = 256

    @nn.compact
    def __call__(
        self, x: Array, noise_level: Array | float, label: Array | int | None = None
    ) -> Array:
        if len(self.blocks) != len(self.channels):
            raise ValueError(
                f"blocks={tuple(self.blocks)}: need one number for each of the grids, "
                f"channels={tuple(self.channels)}"
            )
        check_divides(x, len(self.channels))
        label = self.classes if label is None else label
        e = self._embed(noise_level, label, x.dtype)

        def block(h, features):
            return ResidualBlock(features)(h, e)

        h = nn.Conv(self.channels[0], (3, 3), name="conv_in")(x)
        skips = [[h]] + [[] for _ in self.channels[1:]]
        for grid, c in enumerate(self.channels):
            if grid:
                h = nn.Conv(c, (3, 3), strides=2, padding=1, name=f"down_{grid}")(h)
            for i in range(self.blocks[grid]):
                h = block(h, c)
                if grid in self.attention and i == self.blocks[grid] - 1:
                    h = SelfAttention()(h)
                skips[grid].append(h)
        h = block(SelfAttention()(h), c)
        for grid in reversed(range(len(self.channels))):
            c = self.channels[grid]
            if h.shape[0] != skips[grid][0].shape[0]:
                h = jnp.repeat(jnp.repeat(h, 2, 0), 2, 1)
            for i in range(self.blocks[grid]):
                h = block(jnp.concatenate([h, skips[grid].pop()], -1), c)
                if grid in self.attention and i == self.blocks[grid] - 1:
                    h = SelfAttention()(h)
        h = jnp.concatenate([h, *skips[0]], -1)
        h = nn.silu(GroupNorm(name="norm_out")(h))
        # Starting at zero makes the untrained denoiser the best linear one.
        return nn.Conv(x.shape[-1], (3, 3), kernel_init=ZEROS, name="conv_out")(h)

    def _embed(self, noise_level, label, dtype):
        level = jnp.asarray(noise_level, jnp.float32)
        h = fourier_features(level, jnp.array(FREQUENCIES)).astype(dtype)
        h = nn.silu(nn.Dense(self.embedding, name="level_0")(h))
        h = nn.Dense(self.embedding, name="level_1")(h)
        # One row for each class; the null label has none, so all its entries are zero.
        hot = jax.nn.one_hot(label, self.classes, dtype=dtype)
        init = nn.initializers.normal(0.5)
        own = nn.Dense(self.embedding, use_bias=False, kernel_init=init, name="label")
        return nn.silu(h + own(hot))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; e scales and shifts what is between them."""

    features: int

    @nn.compact
    def __call__(self, x: Array, e: Array) -> Array:
        h = nn.Conv(self.features, (3, 3))(nn.silu(GroupNorm()(x)))
        scale, shift = jnp.split(nn.Dense(2 * self.features)(e), 2)
        h = nn.silu(GroupNorm()(h, 1 + scale, shift))
        h = nn.Conv(self.features, (3, 3), kernel_init=SMALL)(h)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features)(x)
        return (x + h) / jnp.sqrt(2.0).astype(x.dtype)


class SelfAttention(nn.Module):
    """Attention over all pixels, heads of 64 channels where they divide; plus x."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        q, k, v = jnp.split(nn.Dense(3 * c)(GroupNorm()(x)), 3, -1)
        heads = c // 64 if c % 64 == 0 else 1
        h = nn.Dense(c, kernel_init=SMALL)(attend(q, k, v, heads=heads))
        return (x + h) / jnp.sqrt(2.0).astype(x.dtype)


class GroupNorm(nn.Module):
    """GroupNorm of [H, W, C], in 32 groups or as many of a power of two as divide C.

    Sums are first over the pixels of each channel and then over the few channels of a
    group, which spares a GPU the transposition of a reduction over both at once.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: Array, scale: Array | float = 1.0, shift: Array | float = 0.0
    ) -> Array:
        c = x.shape[-1]
        groups = math.gcd(c, 32)
        gamma = self.param("scale", nn.initializers.ones_init(), (c,))
        beta = self.param("bias", nn.initializers.zeros_init(), (c,))
        h = x.astype(jnp.float32)

        def group_mean(a):
            mean = jnp.mean(a.reshape(groups, -1), -1, keepdims=True)
            return jnp.broadcast_to(mean, (groups, c // groups)).reshape(c)

        mean = group_mean(jnp.mean(h, (0, 1)))
        var = group_mean(jnp.mean(h**2, (0, 1))) - mean**2
        gain = gamma * jax.lax.rsqrt(jnp.maximum(var, 0) + self.epsilon)
        return ((h - mean) * (gain * scale) + beta * scale + shift).astype(x.dtype)


ZEROS = nn.initializers.zeros_init()
SMALL = nn.initializers.variance_scaling(1e-4, "fan_in", "truncated_normal")
"""Blocks start close to the identity."""
