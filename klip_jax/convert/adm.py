"""Networks of guided diffusion: 256x256_diffusion_uncond.pt and its relatives.

    https://openaipublic.blob.core.windows.net/diffusion/jul-2021/<file>

That one has 2,211,383,297 bytes and the SHA-256 a37c32fffd316cd4...; it is a flat state
dict. All but two things are in its names and shapes: the side of the images, and how
many channels a head of attention has; the published ones have 64. The noise levels are
linear betas of 1000 steps.

Reference: Dhariwal and Nichol 2021, appendix I; Ho et al. 2020, section 4.
"""

import re
from collections.abc import Mapping

import numpy as np

from klip_jax.convert.base import Converted, flax_tree, record
from klip_jax.convert.diffusers import betas
from klip_jax.convert.state_dict import count

MARK = "time_embed.0.weight"
"""A name that shows this layout."""
SIZES = {4: 64, 5: 128, 6: 256}
"""Side of the images of a published network by its number of grids, pixels."""


def convert(
    arrays: Mapping[str, np.ndarray],
    source: str = "",
    *,
    size: int = 0,
    head_channels: int = 64,
) -> Converted:
    """Return the weights of an unconditional ADM.

    Args:
      arrays: {name: array}, as torch names and lays them out.
      source: where they come from, for the record and messages.
      size: side of the images, pixels; 0 takes that of `SIZES`.
      head_channels: of attention.

    Raises:
      ValueError: if they are not those of a network that we have.
    """
    if "label_emb.weight" in arrays:
        raise ValueError(f"{source}: a network with classes; only those without")
    net = grids(arrays, source)
    size = size or SIZES.get(len(net["multipliers"]), 0)
    if not size:
        raise ValueError(
            f"{source}: does not say how large its images are; give --size=256"
        )
    channels = arrays["input_blocks.0.0.weight"].shape[1]
    net = {"name": "adm.ADM", **net, "head_channels": head_channels}
    net["out_channels"] = arrays["out.2.weight"].shape[0]
    prior = {"name": "epsilon.Epsilon", "betas": betas({})}
    params = flax_tree({name: _flat(array) for name, array in arrays.items()})
    return Converted(params, record(net, prior, (size, size, channels), source))


def grids(arrays: Mapping[str, np.ndarray], source: str) -> dict:
    """Return width, multipliers, blocks and attention of a U-Net of this family.

    Args:
      arrays: {name: array}; ours, or those of the latent-diffusion U-Net.
      source: for messages.

    Raises:
      ValueError: if it has no such network.
    """
    up = re.compile(r"output_blocks\.\d+\.[12]\.(in_layers\.0|conv)\.weight")
    levels = 1 + sum(bool(up.fullmatch(name)) for name in arrays)
    stages = count(arrays, "output_blocks.{}.0.in_layers.0.weight")
    first = arrays.get("input_blocks.0.0.weight")
    if first is None or stages < levels or stages % levels:
        raise ValueError(
            f"{source}: {stages} blocks on the way up at {levels} grids are no U-Net "
            "of guided or latent diffusion"
        )
    blocks, width, widths, attention = stages // levels - 1, first.shape[0], [], []
    for grid in range(levels):
        name = f"input_blocks.{1 + grid * (blocks + 1)}"
        if (last := arrays.get(f"{name}.0.out_layers.3.weight")) is None:
            raise ValueError(f"{source}: it has no {name}.0.out_layers.3.weight")
        widths.append(last.shape[0])
        attention += [grid] if f"{name}.1.norm.weight" in arrays else []
    if any(n % width for n in widths):
        raise ValueError(f"{source}: {widths} channels are no multiples of {width}")
    multipliers = [n // width for n in widths]
    return dict(
        width=width, multipliers=multipliers, blocks=blocks, attention=attention
    )


def _flat(array):
    """Return a 1x1 convolution over a row of pixels [out, in, 1] as a matrix."""
    return array[..., 0] if array.ndim == 3 else array
