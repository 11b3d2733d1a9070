"""Latent diffusion with classes: the model.ckpt of cin256-v2, and that of cin256.

    https://ommer-lab.com/files/latent-diffusion/nitro/cin/model.ckpt   cin256-v2
    https://ommer-lab.com/files/latent-diffusion/cin.zip                cin256

One file has three modules: the U-Net (`model.diffusion_model.`), the table of classes
that it attends to (`cond_stage_model.`) and the autoencoder (`first_stage_model.`). We
keep the first two together and the third by itself. cin256-v2 has latents of three
channels, 1000 classes and the null label, and one head of attention; cin256 (f = 8) has
four, no null label, and heads of 32 channels.

Its "linear" betas are linear in their square roots, from 0.0015 to 0.0195, and the
latents have no range: the prior is of them as they are.

Reference: Rombach et al. 2022, appendices E and G; Esser et al. 2021, section 3.1.
"""

from collections.abc import Mapping

import numpy as np

from klip_jax.convert.adm import grids
from klip_jax.convert.base import Converted, flax_tree, record
from klip_jax.convert.ddim import flat_name
from klip_jax.convert.diffusers import betas
from klip_jax.convert.state_dict import count, part

MARK = "model.diffusion_model.time_embed.0.weight"
"""A name that shows this layout."""
SCHEDULE = dict(beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195)
WITH_NULL = 1001
"""Rows of a table of ImageNet's classes that has the null label."""
NO_PRIOR = ("prior", "errors")
MODULES = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")


def convert(
    arrays: Mapping[str, np.ndarray],
    source: str = "",
    *,
    size: int = 0,
    head_channels: int | None = None,
) -> Converted:
    """Return the weights of the U-Net and its classes.

    Args:
      arrays: {name: array} of all three modules, as torch names and lays them out.
      source: where they come from, for the record and messages.
      size: side of the images, pixels; 0 is 256.
      head_channels: of attention, 0 for one head; None is that of the published one.

    Raises:
      ValueError: if they are not those of networks that we have.
    """
    unet = part(arrays, "model.diffusion_model.")
    table = arrays.get("cond_stage_model.embedding.weight")
    if table is None:
        raise ValueError(f"{source}: conditioned on something other than classes")
    null = len(table) == WITH_NULL
    if head_channels is None:
        head_channels = 0 if null else 32
    blocks = "input_blocks.{}.1.transformer_blocks.{{}}.norm1.weight"
    depths = [count(unet, blocks.format(i)) for i in range(1, len(unet))]
    net = {"name": "latent_unet.LatentUNet", **grids(unet, source)}
    net |= {"head_channels": head_channels, "depth": max(depths)}
    net |= {"classes": len(table) - null, "null_class": null, "context": table.shape[1]}
    params = flax_tree({_gated(name): array for name, array in unet.items()})
    params["params"]["label"] = {"embedding": np.asarray(table, np.float32)}
    coarser = 2 ** (len(_autoencoder(arrays, source)["multipliers"]) - 1)
    side, channels = (size or 256) // coarser, unet["input_blocks.0.0.weight"].shape[1]
    prior = {"name": "epsilon.Epsilon", "betas": _betas(arrays), "low": 0.0}
    return Converted(params, record(net, prior, (side, side, channels), source))


def autoencoder(
    arrays: Mapping[str, np.ndarray], source: str = "", *, size: int = 0
) -> Converted:
    """Return the weights of the autoencoder; its record has no prior.

    Args and errors are those of `convert`.
    """
    net = {"name": "vq_autoencoder.VQAutoencoder", **_autoencoder(arrays, source)}
    first = part(arrays, "first_stage_model.")
    codes = np.asarray(first.pop("quantize.embedding.weight"), np.float32)
    ours = {flat_name(k): v for k, v in first.items() if k.startswith(MODULES)}
    params = flax_tree(ours)
    params["params"]["codes"] = codes
    side = size or 256
    told = record(net, {}, (side, side, net["channels"]), source)
    return Converted(params, {k: told[k] for k in told if k not in NO_PRIOR})


def _autoencoder(arrays, source):
    """Return the settings of the `VQAutoencoder`."""
    first = part(arrays, "first_stage_model.")
    codes = first.get("quantize.embedding.weight")
    conv = first.get("encoder.conv_in.weight")
    if codes is None or conv is None:
        raise ValueError(f"{source}: it has no autoencoder with a table of codes")
    levels = count(first, "encoder.down.{}.block.0.conv1.weight")
    name = "encoder.down.{}.block.0.conv1.weight"
    width = conv.shape[0]
    return dict(
        width=width,
        multipliers=[first[name.format(i)].shape[0] // width for i in range(levels)],
        blocks=count(first, "encoder.down.0.block.{}.conv1.weight"),
        attention=[
            i for i in range(levels) if f"encoder.down.{i}.attn.0.norm.weight" in first
        ],
        latent_channels=codes.shape[1],
        codes=codes.shape[0],
        channels=conv.shape[1],
    )


def _betas(arrays):
    own = arrays.get("betas")
    return betas(SCHEDULE) if own is None else np.float64(own).tolist()


def _gated(name):
    """Return the name of a gated layer without the list that it is in."""
    return name.replace(".ff.net.0.proj.", ".ff_in.").replace(".ff.net.2.", ".ff_out.")
