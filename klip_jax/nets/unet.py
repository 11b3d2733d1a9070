"""A small U-Net for denoising on modest hardware.

x [H, W, C] and a scalar noise level c_noise go in, [H, W, C] comes out. Above 32 pixels
the image is first folded 2x2 into channels (space to depth), which makes 64x64 cost as
much as 32x32; two channels hold the pixel's position, because anatomy is roughly
centred. Residual blocks are modulated by the noise level, and there is one
self-attention at the coarsest grid.

It computes in the dtype of x and the parameters; noise level and position are encoded
in float32 first.

Reference: Ho et al. 2020, appendix B, with the adaptive normalisation of Dhariwal and
Nichol 2021 (section 3.1) and the skip scaling of Karras et al. 2022.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array


class UNet(nn.Module):
    """Map x [H, W, C] at noise level c_noise to [H, W, C].

    Attributes:
      channels: width at each grid, finest first; each next grid is half as fine.
      blocks: residual blocks at each grid, on the way down and on the way up.
      fold: space-to-depth factor; 0 chooses 2 above 32 pixels and 1 below.
      groups: groups of every GroupNorm; must divide each width.
      norm_over: what each GroupNorm takes its statistics over, the "image" or, as the
        first weights of this package were trained, each of its "rows" alone.
    """

    channels: Sequence[int] = (48, 64, 128)
    blocks: int = 1
    fold: int = 0
    groups: int = 8
    norm_over: str = "rows"

    @nn.compact
    def __call__(self, x: Array, noise_level: Array) -> Array:
        if self.norm_over not in ("image", "rows"):
            raise ValueError(f"norm_over={self.norm_over!r}: must be 'image' or 'rows'")
        height, width, out_channels = x.shape
        settings = self.groups, self.norm_over
        fold = self.fold or (2 if max(height, width) > 32 else 1)
        grid = fold * 2 ** (len(self.channels) - 1)
        if height % grid or width % grid:
            raise ValueError(
                f"a {height}x{width} image does not divide into this U-Net's grids: "
                f"both sides must be multiples of {grid}"
            )
        embedding = _noise_embedding(noise_level, 2 * max(self.channels))
        embedding = embedding.astype(x.dtype)
        positions = _positions(height, width).astype(x.dtype)
        h = space_to_depth(jnp.concatenate([x, positions], -1), fold)
        h = nn.Conv(self.channels[0], (3, 3))(h)
        skips = []
        for level, c in enumerate(self.channels):
            if level > 0:
                h = nn.Conv(c, (3, 3), strides=2)(h)
            for _ in range(self.blocks):
                h = ResidualBlock(c, *settings)(h, embedding)
            skips.append(h)
        h = SelfAttention(*settings)(h)
        h = ResidualBlock(self.channels[-1], *settings)(h, embedding)
        # No block is spent on the way up at the coarsest grid: it was the middle.
        for c, skip in reversed(list(zip(self.channels[:-1], skips[:-1], strict=True))):
            h = jnp.concatenate([jnp.repeat(jnp.repeat(h, 2, 0), 2, 1), skip], -1)
            for _ in range(self.blocks):
                h = ResidualBlock(c, *settings)(h, embedding)
        h = nn.silu(_norm(h, *settings))
        # Starting at zero makes the untrained denoiser the best linear one.
        h = nn.Conv(
            out_channels * fold**2, (3, 3), kernel_init=nn.initializers.zeros_init()
        )(h)
        return depth_to_space(h, fold)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the noise level scales and shifts what is between them."""

    features: int
    groups: int
    norm_over: str

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        settings = self.groups, self.norm_over
        h = nn.Conv(self.features, (3, 3))(nn.silu(_norm(x, *settings)))
        scale, offset = jnp.split(nn.Dense(2 * self.features)(embedding), 2, -1)
        h = nn.silu(_norm(h, *settings) * (1 + scale) + offset)
        h = nn.Conv(self.features, (3, 3))(h)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features)(x)
        return (x + h) / jnp.sqrt(2.0)


class SelfAttention(nn.Module):
    """One residual self-attention over all pixels of the coarsest grid."""

    groups: int
    norm_over: str
    heads: int = 4

    @nn.compact
    def __call__(self, x: Array) -> Array:
        height, width, c = x.shape
        h = _norm(x, self.groups, self.norm_over).reshape(height * width, c)
        h = nn.MultiHeadDotProductAttention(self.heads)(h)
        return x + h.reshape(x.shape)


def _norm(x, groups, norm_over):
    """GroupNorm of [H, W, C], in a compact module."""
    # Unless it is told, flax takes the first axis, here the rows, for a batch.
    axes = (-3, -2, -1) if norm_over == "image" else None
    return nn.GroupNorm(groups, reduction_axes=axes)(x)


def space_to_depth(x: Array, fold: int) -> Array:
    """Fold [H, W, C] into [H / fold, W / fold, C * fold^2]."""
    height, width, c = x.shape
    x = x.reshape(height // fold, fold, width // fold, fold, c)
    return x.transpose(0, 2, 1, 3, 4).reshape(height // fold, width // fold, -1)


def depth_to_space(x: Array, fold: int) -> Array:
    """Unfold [H, W, C * fold^2] into [H * fold, W * fold, C]; undoes space_to_depth."""
    height, width, c = x.shape
    x = x.reshape(height, width, fold, fold, c // fold**2)
    return x.transpose(0, 2, 1, 3, 4).reshape(height * fold, width * fold, -1)


def _positions(height: int, width: int) -> Array:
    rows, columns = jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width)
    return jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), -1)


def _noise_embedding(noise_level: Array, features: int) -> Array:
    frequencies = 2.0 ** jnp.arange(-2, 6)
    angles = noise_level * frequencies
    h = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])
    return nn.silu(nn.Dense(features)(nn.silu(nn.Dense(features)(h))))
