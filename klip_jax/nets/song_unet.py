"""SongUNet: DDPM++ and NCSN++ as the EDM release has them, and PaDIS with it.

x [H, W, C_in] and c_noise go in, F [H, W, C_out] comes out; channels of x that are not
to be denoised (PaDIS: the two coordinates of a pixel) come after those that are.

Reference: Karras et al. 2022, appendix F.4 and table 7; Hu et al. 2024, section 3.2
(position channels).
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
    sinusoids,
)


class SongUNet(nn.Module):
    """Map x [H, W, C_in] at noise level c_noise to [H, W, out_channels].

    Attributes:
      width: channels at the finest grid, before its multiplier.
      multipliers: channels over `width` at each grid, finest first.
      blocks: residual blocks at each grid on the way down; one more on the way up.
      attention: grids with self-attention, 0 the finest; the middle always has it.
      out_channels: of the result; 0 for as many as x has.
      embedding: of c_noise, "positional" (DDPM++) or "fourier" (NCSN++).
      noise_width: length of that embedding over `width`: 1 for DDPM++, 2 for NCSN++.
      emb_width: length of what the blocks see, over `width`.
      encoder: "standard" (DDPM++) or "residual" (NCSN++), with a pyramid of the input.
      taps: of the resampling filter; (1, 1) for DDPM++, (1, 3, 3, 1) for NCSN++.
    """

    width: int = 128
    multipliers: Sequence[int] = (1, 2, 2, 2)
    blocks: int = 4
    attention: Sequence[int] = (1,)
    out_channels: int = 0
    embedding: str = "positional"
    noise_width: int = 1
    emb_width: int = 4
    encoder: str = "standard"
    taps: Sequence[float] = (1, 1)

    @nn.compact
    def __call__(self, x: Array, noise_level: Array) -> Array:
        levels = len(self.multipliers)
        out_channels = self.out_channels or x.shape[-1]
        check_divides(x, levels)
        embedding = self._embed(noise_level)

        def block(name, h, features=0, attention=False, resample=""):
            features = features or h.shape[-1]
            own = UNetBlock(features, attention, resample, self.taps, name=name)
            return own(h, embedding)

        h = nn.Conv(self.width, (3, 3), name="enc_0_conv")(x)
        skips, pyramid = [h], x
        for level, multiplier in enumerate(self.multipliers):
            if level:
                h = block(f"enc_{level}_down", h, resample="down")
                if self.encoder == "residual":
                    # The filter comes after the convolution, whose margin it eats.
                    name, c = f"enc_{level}_aux_residual", h.shape[-1]
                    margin = 1 + (len(self.taps) - 1) // 2
                    pyramid = nn.Conv(c, (3, 3), padding=margin, name=name)(pyramid)
                    pyramid = fir_down(pyramid, self.taps, pad=False)
                    h = pyramid = (h + pyramid) / jnp.sqrt(2.0)
                skips.append(h)
            for i in range(self.blocks):
                name, c = f"enc_{level}_block{i}", self.width * multiplier
                h = block(name, h, c, level in self.attention)
                skips.append(h)

        for level in reversed(range(levels)):
            if level == levels - 1:
                h = block(f"dec_{level}_in0", h, attention=True)
                h = block(f"dec_{level}_in1", h)
            else:
                h = block(f"dec_{level}_up", h, resample="up")
            for i in range(self.blocks + 1):
                name, c = f"dec_{level}_block{i}", self.width * self.multipliers[level]
                attention = i == self.blocks and level in self.attention
                h = block(name, jnp.concatenate([h, skips.pop()], -1), c, attention)
        h = nn.silu(group_norm(h, name="dec_0_aux_norm"))
        return nn.Conv(out_channels, (3, 3), name="dec_0_aux_conv")(h)

    def _embed(self, noise_level):
        features = self.noise_width * self.width
        if self.embedding == "fourier":
            normal = nn.initializers.normal(16.0)
            frequencies = self.param("frequencies", normal, (features // 2,))
            h = fourier_features(noise_level, frequencies)
        elif self.embedding == "positional":
            h = sinusoids(noise_level, features)
        else:
            raise ValueError(
                f"embedding={self.embedding!r}: must be 'positional' or 'fourier'"
            )
        for i in range(2):
            h = nn.silu(nn.Dense(self.emb_width * self.width, name=f"map_layer{i}")(h))
        return h


class UNetBlock(nn.Module):
    """Two 3x3 convolutions, the first with the resampling, and perhaps attention.

    Both sums with the input are divided by sqrt(2).
    """

    features: int
    attention: bool
    resample: str
    taps: Sequence[float]

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        c, h = self.features, nn.silu(group_norm(x, name="norm0"))
        if self.resample:
            change = fir_up if self.resample == "up" else fir_down
            h, x = change(h, self.taps), change(x, self.taps)
        h = nn.Conv(c, (3, 3), name="conv0")(h)
        h = nn.silu(group_norm(h + nn.Dense(c, name="affine")(embedding), name="norm1"))
        h = nn.Conv(c, (3, 3), name="conv1")(h)
        if self.resample or x.shape[-1] != c:
            x = nn.Conv(c, (1, 1), name="skip")(x)
        x = (x + h) / jnp.sqrt(2.0)
        if not self.attention:
            return x
        h = nn.Conv(3 * c, (1, 1), name="qkv")(group_norm(x, name="norm2"))
        # Query, key and value of a channel are neighbours.
        q, k, v = jnp.moveaxis(h.reshape(*h.shape[:2], c, 3), -1, 0)
        h = nn.Conv(c, (1, 1), name="proj")(attend(q, k, v))
        return (x + h) / jnp.sqrt(2.0)
