"""The `UNet2DModel` family of the diffusers library: DDPM and its descendants.

x [H, W, C] and a timestep go in, [H, W, out_channels] comes out. Attributes have the
names of a model's config.json, parameters those of its weights.

Reference: Ho et al. 2020, appendix B; Dhariwal and Nichol 2021, section 3 (residual
blocks that resample, scale and shift by the timestep).
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.nets.base import (
    attend,
    check_divides,
    fir_down,
    fir_up,
    group_norm,
    sinusoids,
)

MEAN = (1, 1)
"""The filter of blocks that resample: 2x2 means and the nearest neighbour."""
BLOCKS = {
    f"{kind}{'sample' if resnet else ''}Block2D": (attention, resnet)
    for kind, attention, resnet in [
        ("Down", False, False),
        ("AttnDown", True, False),
        ("ResnetDown", False, True),
        ("Up", False, False),
        ("AttnUp", True, False),
        ("ResnetUp", False, True),
    ]
}
"""{block type: (has attention, resamples in a residual block)}."""


class UNet2DModel(nn.Module):
    """Map x [H, W, C] at a timestep to [H, W, out_channels].

    Attributes:
      block_out_channels: width at each grid, finest first.
      down_block_types, up_block_types: of `BLOCKS`, in the order of use.
      layers_per_block: residual blocks at each grid on the way down; one more up.
      out_channels: of the result; 0 for as many as x has.
      attention_head_dim: channels of a head; None for one head.
      add_attention: attention in the middle.
      norm_num_groups, norm_eps: of every GroupNorm.
      attn_norm_num_groups: of the middle's attention; None for `norm_num_groups`, and
        for no normalisation where `resnet_time_scale_shift` is "scale_shift".
      mid_block_scale_factor: the middle's sums are divided by it.
      downsample_padding: 1, or 0 to pad at the bottom and right only.
      downsample_type, upsample_type: of blocks with attention, "conv" or "resnet".
      resnet_time_scale_shift: "default" adds the timestep, "scale_shift" modulates.
      freq_shift, flip_sin_to_cos: of the timestep's sinusoids; see `sinusoids`.
      center_input_sample: map x to 2 x - 1 first.
    """

    block_out_channels: Sequence[int] = (224, 448, 672, 896)
    down_block_types: Sequence[str] = ("DownBlock2D",) + 3 * ("AttnDownBlock2D",)
    up_block_types: Sequence[str] = 3 * ("AttnUpBlock2D",) + ("UpBlock2D",)
    layers_per_block: int = 2
    out_channels: int = 0
    attention_head_dim: int | None = 8
    add_attention: bool = True
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    attn_norm_num_groups: int | None = None
    mid_block_scale_factor: float = 1.0
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    resnet_time_scale_shift: str = "default"
    freq_shift: int = 0
    flip_sin_to_cos: bool = True
    center_input_sample: bool = False

    @nn.compact
    def __call__(self, x: Array, timestep: Array) -> Array:
        self._check()
        widths, out_channels = self.block_out_channels, self.out_channels or x.shape[-1]
        check_divides(x, len(widths))
        wave = sinusoids(timestep, widths[0], freq_shift=self.freq_shift)
        wave = jnp.roll(wave, widths[0] // 2) if self.flip_sin_to_cos else wave
        embedding = TimestepEmbedding(4 * widths[0], name="time_embedding")(wave)
        x = 2 * x - 1 if self.center_input_sample else x
        h = nn.Conv(widths[0], (3, 3), name="conv_in")(x)
        settings, skips = self._settings(), [h]
        for i, (kind, c) in enumerate(zip(self.down_block_types, widths, strict=True)):
            attention, resnet = BLOCKS[kind]
            resample = "" if i == len(widths) - 1 else "down"
            resnet |= attention and self.downsample_type == "resnet"
            block = Block(
                settings, c, attention, resample, resnet, name=f"down_blocks_{i}"
            )
            h, new = block(h, embedding, self.layers_per_block * [None])
            skips += new
        h = self._middle(settings)(h, embedding)
        for i, kind in enumerate(self.up_block_types):
            attention, resnet = BLOCKS[kind]
            c, resample = widths[-1 - i], "" if i == len(widths) - 1 else "up"
            resnet |= attention and self.upsample_type == "resnet"
            block = Block(
                settings, c, attention, resample, resnet, name=f"up_blocks_{i}"
            )
            own = [skips.pop() for _ in range(self.layers_per_block + 1)]
            h, _ = block(h, embedding, own)
        h = nn.silu(_norm(settings, h, "conv_norm_out"))
        return nn.Conv(out_channels, (3, 3), name="conv_out")(h)

    def _settings(self):
        return Settings(
            self.norm_num_groups,
            self.norm_eps,
            self.attention_head_dim,
            self.resnet_time_scale_shift == "scale_shift",
            self.downsample_padding,
        )

    def _middle(self, settings):
        groups = self.attn_norm_num_groups
        if groups is None and not settings.modulate:
            groups = settings.groups
        scale = self.mid_block_scale_factor
        return Middle(settings, self.add_attention, groups, scale, name="mid_block")

    def _check(self):
        words = {
            "downsample_type": ("conv", "resnet"),
            "upsample_type": ("conv", "resnet"),
            "resnet_time_scale_shift": ("default", "scale_shift"),
            "downsample_padding": (0, 1),
        }
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be of {known}")
        for way in ("Down", "Up"):
            for kind in getattr(self, f"{way.lower()}_block_types"):
                if kind not in BLOCKS or way not in kind:
                    known = [k for k in BLOCKS if way in k]
                    raise ValueError(f"block type {kind!r}: must be one of {known}")


class Settings(NamedTuple):
    """What all blocks of one network have in common."""

    groups: int
    epsilon: float
    head_dim: int | None
    modulate: bool
    padding: int


class TimestepEmbedding(nn.Module):
    """Two dense layers."""

    features: int

    @nn.compact
    def __call__(self, wave: Array) -> Array:
        h = nn.silu(nn.Dense(self.features, name="linear_1")(wave))
        return nn.Dense(self.features, name="linear_2")(h)


class Block(nn.Module):
    """What is at one grid on one way: residual blocks, attention, resampling."""

    settings: Settings
    features: int
    attention: bool
    resample: str
    resnet: bool

    @nn.compact
    def __call__(self, h: Array, embedding: Array, skips: list) -> tuple[Array, list]:
        states = []
        for j, skip in enumerate(skips):
            h = h if skip is None else jnp.concatenate([h, skip], -1)
            own = ResnetBlock(self.settings, self.features, name=f"resnets_{j}")
            h = own(h, embedding)
            if self.attention:
                groups = self.settings.groups
                h = Attention(self.settings, groups, name=f"attentions_{j}")(h)
            states.append(h)
        if not self.resample:
            return h, states
        name = f"{self.resample}samplers_0"
        if self.resnet:
            own = ResnetBlock(self.settings, self.features, self.resample, name=name)
            h = own(h, embedding)
        else:
            h = Resample(self.resample, self.settings.padding, name=name)(h)
        return h, [*states, h]


class Middle(nn.Module):
    """Residual block, perhaps attention, residual block at the coarsest grid."""

    settings: Settings
    attention: bool
    groups: int | None
    scale: float

    @nn.compact
    def __call__(self, h: Array, embedding: Array) -> Array:
        c, settings, scale = h.shape[-1], self.settings, self.scale
        h = ResnetBlock(settings, c, scale=scale, name="resnets_0")(h, embedding)
        if self.attention:
            h = Attention(settings, self.groups, scale, name="attentions_0")(h)
        return ResnetBlock(settings, c, scale=scale, name="resnets_1")(h, embedding)


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions, the timestep between them; (x + h) / scale."""

    settings: Settings
    features: int
    resample: str = ""
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        c, h = self.features, nn.silu(_norm(self.settings, x, "norm1"))
        if self.resample:
            change = fir_up if self.resample == "up" else fir_down
            h, x = change(h, MEAN), change(x, MEAN)
        h = nn.Conv(c, (3, 3), name="conv1")(h)
        modulate = self.settings.modulate
        embedding = nn.silu(embedding)
        e = nn.Dense(2 * c if modulate else c, name="time_emb_proj")(embedding)
        h = _norm(self.settings, h if modulate else h + e, "norm2")
        if modulate:
            gain, offset = jnp.split(e, 2)
            h = h * (1 + gain) + offset
        h = nn.Conv(c, (3, 3), name="conv2")(nn.silu(h))
        if x.shape[-1] != c:
            x = nn.Conv(c, (1, 1), name="conv_shortcut")(x)
        return (x + h) / self.scale


class Attention(nn.Module):
    """Self-attention over all pixels; (x + h) / scale."""

    settings: Settings
    groups: int | None
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c, h = x.shape[-1], x
        heads = c // (self.settings.head_dim or c)
        if self.groups is not None:
            h = group_norm(
                x, groups=self.groups, epsilon=self.settings.epsilon, name="group_norm"
            )
        q, k, v = (nn.Dense(c, name=name)(h) for name in ("to_q", "to_k", "to_v"))
        h = nn.Dense(c, name="to_out_0")(attend(q, k, v, heads=heads))
        return (x + h) / self.scale


class Resample(nn.Module):
    """A convolution that halves the grid, or one after doubling it."""

    way: str
    padding: int

    @nn.compact
    def __call__(self, h: Array) -> Array:
        c, kernel = h.shape[-1], (3, 3)
        if self.way == "up":
            h = jax.image.resize(h, (2 * h.shape[0], 2 * h.shape[1], c), "nearest")
            return nn.Conv(c, kernel, name="conv")(h)
        padding = 2 * ((self.padding, 1),)
        return nn.Conv(c, kernel, strides=2, padding=padding, name="conv")(h)


def _norm(settings, x, name):
    return group_norm(x, groups=settings.groups, epsilon=settings.epsilon, name=name)
