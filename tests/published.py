"""Names of torch for our trees: what the converters of published weights undo."""

import re

import numpy as np
from flax import traverse_util


def arrays_of(params):
    """Return {name: array} of a U-Net or of an autoencoder, as torch lays them out."""
    found = {}
    flat = traverse_util.flatten_dict(params["params"], sep=".")
    for path, array in flat.items():
        array = np.asarray(array)
        *module, leaf = path.split(".")
        name, leaf = _name(".".join(module)), "bias" if leaf == "bias" else "weight"
        if path.endswith("kernel") and array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif path.endswith("kernel"):
            array = array.T
            # Guided diffusion has convolutions over a row of pixels there.
            row = name.endswith(("qkv", "proj_out")) and "transformer" not in path
            array = array[..., None] if row else array
        found[f"{name}.{leaf}"] = np.ascontiguousarray(array)
    return found


def latent_diffusion(unet, autoencoder):
    """Return {name: array} of the file of a latent diffusion."""
    unet, first = arrays_of(unet), arrays_of(autoencoder)
    table, codes = unet.pop("label.weight"), first.pop(".weight")
    return {
        **{f"model.diffusion_model.{k}": v for k, v in unet.items()},
        **{f"first_stage_model.{k}": v for k, v in first.items()},
        "first_stage_model.quantize.embedding.weight": codes,
        "cond_stage_model.embedding.weight": table,
        "model_ema.decay": np.zeros(()),
    }


def _name(module):
    module = re.sub(r"(down|up)_(\d)_sample", r"\1.\2.\1sample.conv", module)
    module = re.sub(r"\b(mid|temb)_", r"\1.", module)
    module = re.sub(r"\b(down|up)_(\d)_(block|attn)", r"\1.\2.\3", module)
    module = module.replace("ff_in", "ff.net.0.proj").replace("ff_out", "ff.net.2")
    # The blocks and attentions in the middle have a number in their names.
    return re.sub(r"(?<!mid\.block)(?<!mid\.attn)_(\d+)", r".\1", module)
