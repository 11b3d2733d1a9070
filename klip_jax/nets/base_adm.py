"""What the guided-diffusion U-Net and the latent-diffusion one share.

Both walk the same grids: at each, `blocks` residual blocks going down and one more
going up, every state on the way down joined once on the way up. What they put there
differs: a block's timestep scales and shifts or is added, attention is over pixels or a
transformer, grids change in a residual block or by a convolution.

A residual block is r(x) + W2 silu(N2(W1 r(silu(N1(x))))), with r the resampling of
blocks that change the grid, and the timestep's e before or after N2. Modules have the
names of the published weights, with "_" for their dots: input_blocks.3.0 is
input_blocks_3_0.

Reference: Dhariwal and Nichol 2021, section 3; Rombach et al. 2022, appendix E.2.1.
Groups, epsilons and orders are those of the published weights.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.nets.base import check_divides, fir_down, fir_up, group_norm, sinusoids

GROUPS = 32
MEAN = (1, 1)
"""The filter of blocks that resample: 2x2 means and the nearest neighbour."""


class Grids(NamedTuple):
    """Where a network has what.

    Attributes:
      width: channels at a multiplier of 1; also the length of the sinusoids.
      multipliers: channels over `width` at each grid, finest first.
      blocks: residual blocks at each grid on the way down; one more on the way up.
      attention: grids with attention after each residual block; the middle has it.
    """

    width: int
    multipliers: Sequence[int]
    blocks: int
    attention: Sequence[int]


def walk(
    x: Array,
    grids: Grids,
    *,
    block: Callable[[Array, int, str], Array],
    attention: Callable[[Array, str], Array],
    change: Callable[[Array, str, str], Array],
    out_channels: int,
) -> Array:
    """Take `x` [H, W, C] down the grids and up again: [H, W, out_channels].

    Call it in a compact module.

    Args:
      x: image or latent.
      grids: see `Grids`.
      block: (h, channels, name) -> h, a residual block.
      attention: (h, name) -> h.
      change: (h, "down" or "up", name) -> h on the next grid.
      out_channels: of the result.

    Raises:
      ValueError: if the sides of x are not multiples of its coarsest grid.
    """
    check_divides(x, len(grids.multipliers))
    widths = [grids.width * multiplier for multiplier in grids.multipliers]
    h = nn.Conv(grids.width, (3, 3), name="input_blocks_0_0")(x)
    skips = [h]
    for grid, c in enumerate(widths):
        for _ in range(grids.blocks):
            i = len(skips)
            h = block(h, c, f"input_blocks_{i}_0")
            if grid in grids.attention:
                h = attention(h, f"input_blocks_{i}_1")
            skips.append(h)
        if grid < len(widths) - 1:
            h = change(h, "down", f"input_blocks_{len(skips)}_0")
            skips.append(h)
    h = block(h, widths[-1], "middle_block_0")
    h = attention(h, "middle_block_1")
    h = block(h, widths[-1], "middle_block_2")
    states = len(skips)
    for grid in reversed(range(len(widths))):
        for j in range(grids.blocks + 1):
            i, part = states - len(skips), 1
            h = jnp.concatenate([h, skips.pop()], -1)
            h = block(h, widths[grid], f"output_blocks_{i}_0")
            if grid in grids.attention:
                h, part = attention(h, f"output_blocks_{i}_1"), 2
            if grid and j == grids.blocks:
                h = change(h, "up", f"output_blocks_{i}_{part}")
    h = nn.silu(norm(h, "out_0"))
    return nn.Conv(out_channels, (3, 3), name="out_2")(h)


def embed(timestep: Array | float, width: int) -> Array:
    """Return the embedding e [4 width] of a timestep, scalar, in a compact module.

    It is W1 silu(W0 w), with the sinusoids w = [cos, sin](t 10000^(-2 i / width)).
    """
    level = jnp.asarray(timestep, jnp.float32)
    wave = jnp.roll(sinusoids(level, width, freq_shift=0), width // 2)
    h = nn.silu(nn.Dense(4 * width, name="time_embed_0")(wave))
    return nn.Dense(4 * width, name="time_embed_2")(h)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the timestep between them.

    Attributes:
      features: channels of the result.
      modulate: e scales and shifts N2(h), h = N2(h) (1 + a) + b; else N2(h + a).
      resample: "down" or "up" to change the grid, "" to stay.
    """

    features: int
    modulate: bool
    resample: str = ""

    @nn.compact
    def __call__(self, x: Array, e: Array) -> Array:
        c, h = self.features, nn.silu(norm(x, "in_layers_0"))
        if self.resample:
            change = fir_up if self.resample == "up" else fir_down
            h, x = change(h, MEAN), change(x, MEAN)
        h = nn.Conv(c, (3, 3), name="in_layers_2")(h)
        e = nn.Dense((1 + self.modulate) * c, name="emb_layers_1")(nn.silu(e))
        if self.modulate:
            gain, offset = jnp.split(e, 2)
            h = norm(h, "out_layers_0") * (1 + gain) + offset
        else:
            h = norm(h + e, "out_layers_0")
        h = nn.Conv(c, (3, 3), name="out_layers_3")(nn.silu(h))
        if x.shape[-1] != c:
            x = nn.Conv(c, (1, 1), name="skip_connection")(x)
        return x + h


def norm(x: Array, name: str, *, epsilon: float = 1e-5) -> Array:
    """Normalise `x` [H, W, C] in 32 groups."""
    return group_norm(x, groups=GROUPS, epsilon=epsilon, name=name)


def heads_of(channels: int, head_channels: int) -> int:
    """Return the number of heads of `head_channels` each; 0 gives one head."""
    heads, rest = divmod(channels, head_channels or channels)
    if rest:
        raise ValueError(
            f"head_channels={head_channels}: must divide the {channels} channels of "
            "every grid with attention"
        )
    return heads


def doubled(h: Array) -> Array:
    """Return [2 H, 2 W, C], each pixel four times."""
    return jax.image.resize(h, (2 * h.shape[0], 2 * h.shape[1], h.shape[2]), "nearest")
