"""The DDPM network for CIFAR-10 in its PyTorch version, told the class by a sum.

    e = W1 silu(W0 w) + l_y,    w = [sin, cos](t 10000^(-i / (width / 2 - 1))),

where l_y is a row of a table that has one more row, for the null label.

Reference: Ho et al. 2020, appendix B; Song et al. 2021 (DDIM), appendix D.1; Liu et al.
2022, arXiv 2211.11255 (the classes).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from klip_jax.nets.base import check_divides, sinusoids
from klip_jax.nets.base_ddpm import (
    Attention,
    ResidualBlock,
    doubled,
    halved,
    middle,
    norm,
)


class DDIMUNet(nn.Module):
    """Map x [H, W, C] at a timestep, and a label, to the noise in it [H, W, C].

    The defaults are those of DiffNB's network for CIFAR-10.

    Attributes:
      width: channels at a multiplier of 1; a multiple of 32.
      multipliers: channels over `width` at each grid, finest first.
      blocks: residual blocks at each grid on the way down; one more on the way up.
      attention: grids with attention after each residual block; the middle has it.
      classes: labels are 0 .. classes - 1; `classes`, or None, is the null label.

    Raises:
      ValueError: if the sides of x are not multiples of its coarsest grid.
    """

    width: int = 128
    multipliers: Sequence[int] = (1, 2, 2, 2)
    blocks: int = 2
    attention: Sequence[int] = (1,)
    classes: int = 10

    @nn.compact
    def __call__(
        self, x: Array, timestep: Array | float, label: Array | int | None = None
    ) -> Array:
        check_divides(x, len(self.multipliers))
        e = self._embed(timestep, self.classes if label is None else label)
        widths = [self.width * multiplier for multiplier in self.multipliers]

        def block(h, c, grid, way, j):
            h = ResidualBlock(c, name=f"{way}_{grid}_block_{j}")(h, e)
            if grid in self.attention:
                h = Attention(name=f"{way}_{grid}_attn_{j}")(h)
            return h

        h = nn.Conv(self.width, (3, 3), name="conv_in")(x)
        skips = [h]
        for grid, c in enumerate(widths):
            for j in range(self.blocks):
                h = block(h, c, grid, "down", j)
                skips.append(h)
            if grid < len(widths) - 1:
                h = halved(h, f"down_{grid}_sample")
                skips.append(h)
        h = middle(h, e)
        for grid in reversed(range(len(widths))):
            for j in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], -1)
                h = block(h, widths[grid], grid, "up", j)
            if grid:
                h = doubled(h, f"up_{grid}_sample")
        h = nn.silu(norm(h, "norm_out"))
        return nn.Conv(x.shape[-1], (3, 3), name="conv_out")(h)

    def _embed(self, timestep, label):
        wave = sinusoids(jnp.asarray(timestep, jnp.float32), self.width)
        h = nn.silu(nn.Dense(4 * self.width, name="temb_dense_0")(wave))
        h = nn.Dense(4 * self.width, name="temb_dense_1")(h)
        table = nn.Embed(self.classes + 1, 4 * self.width, name="label_emb")
        return h + table(jnp.asarray(label))
