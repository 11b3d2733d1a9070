"""An autoencoder whose decoder sees codes of a table: images to latents and back.

    z = Q E(x),    q_ij = e_k,  k = argmin_k |z_ij - e_k|^2,    x' = D(P q),

with E and D convolutional, Q and P 1x1 convolutions. Images are [H, W, C] in [-1, 1];
latents [h, w, c] have no range. A diffusion of latents is of z, before the table; what
it makes goes through the table when it is decoded.

Reference: van den Oord et al. 2017, eqs. 1 and 2; Esser et al. 2021, section 3.1;
Rombach et al. 2022, section 3.1 (VQ-regularised) and appendix G.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from klip_jax.nets.base import check_divides
from klip_jax.nets.base_ddpm import (
    Attention,
    ResidualBlock,
    doubled,
    halved,
    middle,
    norm,
)


class VQAutoencoder(nn.Module):
    """Map an image [H, W, C] in [-1, 1] to latents and back.

    `apply(params, x, method="encode")` gives z [h, w, c], `method="quantise"` of such z
    the codes [h, w, c] and their numbers [h, w], `method="decode"` of such z an image,
    through the codes. The call itself is all of it. The defaults are those of
    cin256-v2.

    Attributes:
      width: channels at a multiplier of 1; a multiple of 32.
      multipliers: channels over `width` at each grid, finest first; the latents are on
        the last.
      blocks: residual blocks at each grid in E; one more in D.
      attention: grids with attention after each residual block; the middle has it.
      latent_channels: c.
      codes: rows of the table.
      channels: C.

    Raises:
      ValueError: if the sides of x are not multiples of its coarsest grid.
    """

    width: int = 128
    multipliers: Sequence[int] = (1, 2, 4)
    blocks: int = 2
    attention: Sequence[int] = ()
    latent_channels: int = 3
    codes: int = 8192
    channels: int = 3

    def setup(self):
        widths = tuple(self.width * multiplier for multiplier in self.multipliers)
        shared = widths, self.blocks, tuple(self.attention)
        c = self.latent_channels
        self.encoder = Encoder(*shared, c)
        self.decoder = Decoder(*shared, self.channels)
        self.quant_conv = nn.Conv(c, (1, 1))
        self.post_quant_conv = nn.Conv(c, (1, 1))
        init = nn.initializers.uniform(2 / self.codes)
        self.table = self.param("codes", init, (self.codes, c))

    def __call__(self, x: Array) -> Array:
        return self.decode(self.encode(x))

    def encode(self, x: Array) -> Array:
        """Return z [h, w, c], not quantised, of an image [H, W, C] in [-1, 1]."""
        return self.quant_conv(self.encoder(x))

    def quantise(self, z: Array) -> tuple[Array, Array]:
        """Return the nearest codes [h, w, c] of z [h, w, c], and their rows [h, w]."""
        squares = jnp.sum(self.table**2, -1) - 2 * z @ self.table.T
        rows = jnp.argmin(jnp.sum(z**2, -1, keepdims=True) + squares, -1)
        return jnp.take(self.table, rows, axis=0), rows

    def decode(self, z: Array) -> Array:
        """Return the image [H, W, C], about in [-1, 1], of the nearest codes of z."""
        return self.decode_codes(self.quantise(z)[0])

    def decode_codes(self, codes: Array) -> Array:
        """Return the image [H, W, C] of codes [h, w, c], not quantised again."""
        return self.decoder(self.post_quant_conv(codes))


class Encoder(nn.Module):
    """Residual blocks on ever coarser grids."""

    widths: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    out_channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check_divides(x, len(self.widths))
        h = nn.Conv(self.widths[0], (3, 3), name="conv_in")(x)
        for grid, c in enumerate(self.widths):
            for j in range(self.blocks):
                h = ResidualBlock(c, name=f"down_{grid}_block_{j}")(h)
                if grid in self.attention:
                    h = Attention(name=f"down_{grid}_attn_{j}")(h)
            if grid < len(self.widths) - 1:
                h = halved(h, f"down_{grid}_sample")
        h = nn.silu(norm(middle(h), "norm_out"))
        return nn.Conv(self.out_channels, (3, 3), name="conv_out")(h)


class Decoder(nn.Module):
    """Residual blocks on ever finer grids; grid 0 is the finest, and last."""

    widths: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    out_channels: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        h = middle(nn.Conv(self.widths[-1], (3, 3), name="conv_in")(z))
        for grid in reversed(range(len(self.widths))):
            for j in range(self.blocks + 1):
                h = ResidualBlock(self.widths[grid], name=f"up_{grid}_block_{j}")(h)
                if grid in self.attention:
                    h = Attention(name=f"up_{grid}_attn_{j}")(h)
            if grid:
                h = doubled(h, f"up_{grid}_sample")
        h = nn.silu(norm(h, "norm_out"))
        return nn.Conv(self.out_channels, (3, 3), name="conv_out")(h)
