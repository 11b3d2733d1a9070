"""The DDPM network for CIFAR-10 with classes, as DiffNB trained it.

The file is a flat state dict, `ddim_cifar10_cond`, linked to from the README of
https://github.com/luping-liu/DiffOOD; its names and shapes say everything
but the side of the images. Its noise levels are linear betas of 1000 steps.

Reference: Liu et al. 2022, arXiv 2211.11255; Ho et al. 2020, section 4 and appendix B.
"""

import re
from collections.abc import Mapping

import numpy as np

from klip_jax.convert.base import Converted, flax_tree, record
from klip_jax.convert.diffusers import betas
from klip_jax.convert.state_dict import count

MARK = "temb.dense.0.weight"
"""A name that shows this layout."""


def convert(
    arrays: Mapping[str, np.ndarray], source: str = "", *, size: int = 0
) -> Converted:
    """Return the weights of a network of DiffNB.

    Args:
      arrays: {name: array}, as torch names and lays them out.
      source: where they come from, for the record and messages.
      size: side of the images, pixels; 0 is 32.

    Raises:
      ValueError: if they are not those of a network that we have.
    """
    arrays = dict(arrays)
    table, first = arrays.pop("label_emb.weight", None), arrays.get("conv_in.weight")
    if table is None or first is None:
        raise ValueError(f"{source}: it has no label_emb.weight or no conv_in.weight")
    name, width = "down.{}.block.0.conv1.weight", first.shape[0]
    levels = count(arrays, name)
    net = dict(
        name="ddim_unet.DDIMUNet",
        width=width,
        multipliers=[arrays[name.format(i)].shape[0] // width for i in range(levels)],
        blocks=count(arrays, "down.0.block.{}.conv1.weight"),
        attention=[
            i for i in range(levels) if f"down.{i}.attn.0.norm.weight" in arrays
        ],
        classes=len(table) - 1,
    )
    params = flax_tree({flat_name(name): array for name, array in arrays.items()})
    params["params"]["label_emb"] = {"embedding": np.asarray(table, np.float32)}
    shape = (size or 32, size or 32, first.shape[1])
    prior = {"name": "epsilon.Epsilon", "betas": betas({})}
    return Converted(params, record(net, prior, shape, source))


def flat_name(name: str) -> str:
    """Return down.0.block.1 as down_0_block_1, and so on; see `nets.base_ddpm`."""
    name = re.sub(r"\b(down|up)\.(\d+)\.(block|attn)\.(\d+)\.", r"\1_\2_\3_\4.", name)
    name = re.sub(r"\b(down|up)\.(\d+)\.\1sample\.conv\.", r"\1_\2_sample.", name)
    return re.sub(r"\b(mid|temb)\.", r"\1_", name).replace("dense.", "dense_")
