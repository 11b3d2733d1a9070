"""Models of the diffusers library: a folder in Hugging Face layout, or a hub id.

    <folder>/[unet/]config.json, <folder>/[unet/]*.safetensors (or *.bin),
    <folder>/[scheduler/]scheduler_config.json

Older repositories have pickled weights alone (.bin); those are read by `pickles`, which
executes nothing. Only `UNet2DModel` in pixel space. Its timesteps are those of the
scheduler's betas, and it predicts the noise or the velocity of images in [-1, 1].

Reference: Ho et al. 2020, section 4 (linear betas); Nichol and Dhariwal 2021, eq. 17
(cosine betas).
"""

import json
import pathlib
import re
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from klip_jax.convert import pickles
from klip_jax.convert.base import Converted, flax_tree, record
from klip_jax.nets.unet2d import UNet2DModel

NETWORK = frozenset(UNet2DModel.__dataclass_fields__) - {"parent", "name"}
SAME = {
    "act_fn": ("silu", "swish"),
    "time_embedding_type": ("positional",),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "mid_block_type": ("UNetMidBlock2D", "auto"),
    "time_embedding_dim": (None,),
}
"""Settings of a config.json with the values that our network has."""
PREDICTIONS = {"epsilon": "epsilon.Epsilon", "v_prediction": "velocity.Velocity"}
PINNED = {"google/ddpm-celebahq-256": "cd5c944777ea2668051904ead6cc120739b86c4d"}
"""Commits of the models that configs here ask for."""
# Attention layers were renamed once.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


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
        raise ValueError(f"{place / 'config.json'}: not the config of a UNet2DModel")
    schedule = [folder / "scheduler" / "scheduler_config.json"]
    schedule += [folder / "scheduler_config.json", place / "scheduler_config.json"]
    found = [path for path in schedule if path.is_file()]
    if not found:
        raise FileNotFoundError(f"{schedule[0]}: no such file; it has the noise levels")
    return convert(config, _read_json(found[0]), _weights(place), str(folder))


def download(hub_id: str, revision: str = "") -> pathlib.Path:
    """Download a model from the hub and return its folder; needs huggingface_hub.

    Args:
      hub_id: "<owner>/<name>".
      revision: a commit; "" takes the one in `PINNED`, for other models the newest. The
        last part of the folder returned is the commit that it was.

    Raises:
      ValueError: if huggingface_hub is not installed.
      OSError: if the hub does not have it or cannot be reached.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ValueError(
            f"{hub_id}: no such folder, and to download it the package "
            "huggingface_hub must be installed: pip install huggingface_hub"
        ) from None
    place = {"repo_id": hub_id, "revision": revision or PINNED.get(hub_id)}
    try:
        files = huggingface_hub.list_repo_files(**place)
        safe = any(name.endswith(".safetensors") for name in files)
        patterns = ["*.json", "*.safetensors" if safe else "*.bin"]
        return pathlib.Path(
            huggingface_hub.snapshot_download(**place, allow_patterns=patterns)
        )
    except Exception as error:  # of the network, in great variety
        raise OSError(f"{hub_id}: cannot be downloaded ({error})") from None


def convert(config: dict, scheduler: dict, arrays, source: str = "") -> Converted:
    """Return the weights of a `UNet2DModel`.

    Args:
      config: its config.json.
      scheduler: its scheduler_config.json.
      arrays: {name: array}, as torch names and lays them out.
      source: where they come from, for the record and messages.

    Raises:
      ValueError: if the configs ask for something that we do not have.
    """
    for name, known in SAME.items():
        if config.get(name, known[0]) not in known:
            raise ValueError(
                f"{source}: {name}={config[name]!r}; only {known[0]!r} can be converted"
            )
    net = {k: v for k, v in config.items() if k in NETWORK}
    # What later versions of diffusers added has the old behaviour as its default.
    net = {k: v for k, v in net.items() if v is not None or "attention" in k}
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"{source}: prediction_type={prediction!r}; must be one of "
            f"{sorted(PREDICTIONS)}"
        )
    prior = {"name": PREDICTIONS[prediction], "betas": betas(scheduler, source)}
    size, channels = config["sample_size"], config["in_channels"]
    if size is None:
        raise ValueError(f"{source}: config.json has no sample_size")
    height, width = (size, size) if isinstance(size, int) else size
    params = flax_tree({_renamed(name): array for name, array in arrays.items()})
    net = {"name": "unet2d.UNet2DModel", **net}
    return Converted(params, record(net, prior, (height, width, channels), source))


def betas(scheduler: Mapping, source: str = "") -> list[float]:
    """Return the variances [T] of a scheduler_config.json.

    Raises:
      ValueError: if it names a schedule that we do not know.
    """
    if scheduler.get("trained_betas"):
        return [float(b) for b in scheduler["trained_betas"]]
    if scheduler.get("rescale_betas_zero_snr"):
        raise ValueError(f"{source}: rescale_betas_zero_snr has no finite noise level")
    steps = scheduler.get("num_train_timesteps", 1000)
    low, high = scheduler.get("beta_start", 1e-4), scheduler.get("beta_end", 0.02)
    kind = scheduler.get("beta_schedule", "linear")
    if kind == "linear":
        found = np.linspace(low, high, steps)
    elif kind == "scaled_linear":
        found = np.linspace(low**0.5, high**0.5, steps) ** 2
    elif kind == "squaredcos_cap_v2":
        angle = (np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2
        abar = np.cos(angle) ** 2
        found = np.minimum(1 - abar[1:] / abar[:-1], 0.999)
    else:
        raise ValueError(
            f"{source}: beta_schedule={kind!r}; must be linear, scaled_linear, "
            "squaredcos_cap_v2, or trained_betas given"
        )
    return found.tolist()


def _renamed(name):
    parts = name.split(".")
    if "attentions" in parts and parts[-2] in RENAMED:
        parts[-2:-1] = RENAMED[parts[-2]].split(".")
    name = ".".join(parts)
    return re.sub(r"samplers\.0\.Conv2d_0\.", "samplers.0.conv.", name)


def _read_json(path):
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; not a folder of diffusers")
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: not the JSON of a config")
    return found


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
    found = pickles.load(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds no weights by name")
    return pickles.arrays(found)
