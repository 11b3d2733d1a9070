"""Folders in Hugging Face layout, with a model of the diffusers library.

    <folder>/[unet/]config.json, <folder>/[unet/]*.safetensors (or *.bin),
    <folder>/[scheduler/]scheduler_config.json

Older repositories have pickled weights alone (.bin); those are read by `pickles`, which
executes nothing.
"""

import json
import pathlib
import re

from safetensors import SafetensorError
from safetensors.numpy import load_file

from klip_jax.convert import pickles
from klip_jax.convert.base import Converted
from klip_jax.convert.diffusers import convert


def load(folder) -> Converted:
    """Read a folder in Hugging Face layout; nothing of it is executed.

    Args:
      folder: with config.json and the weights, in it or in its sub-folder unet.

    Returns:
      The parameters and record of `nets.unet2d.UNet2DModel`.

    Raises:
      FileNotFoundError: if a file is absent.
      ValueError: if a file is broken, asks for something that we do not have, or wants
        to execute something.
    """
    folder = pathlib.Path(folder)
    place = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    config = _read_json(place / "config.json")
    if "block_out_channels" not in config:
        raise ValueError(
            f"{place / 'config.json'}: not the config of a UNet2DModel; of a "
            "classifier of timm give its file, --source=model.safetensors"
        )
    schedule = [folder / "scheduler" / "scheduler_config.json"]
    schedule += [folder / "scheduler_config.json", place / "scheduler_config.json"]
    present = [path for path in schedule if path.is_file()]
    if not present:
        raise FileNotFoundError(f"{schedule[0]}: no such file; it has the noise levels")
    return convert(config, _read_json(present[0]), _weights(place), str(folder))


def _read_json(path):
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; not a folder of diffusers")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: not the JSON of a config")
    return config


def _weights(place):
    files = _choose(place, "safetensors") or _choose(place, "bin")
    if not files:
        raise FileNotFoundError(
            f"{place}: no weights there, neither *.safetensors nor *.bin"
        )
    return {k: v for file in files for k, v in _read_weights(file).items()}


def _choose(place, suffix):
    """Return the files of the weights; variants (fp16, ema) lie beside them."""
    files = sorted(place.glob(f"*.{suffix}"))
    whole = [f for f in files if f.stem == "diffusion_pytorch_model"]
    return (
        whole or [f for f in files if re.search(r"-\d+-of-\d+$", f.stem)] or files[:1]
    )


def _read_weights(path):
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(
                f"{path}: not a readable safetensors file ({error})"
            ) from None
    content = pickles.load(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no weights by name")
    return pickles.arrays(content)
