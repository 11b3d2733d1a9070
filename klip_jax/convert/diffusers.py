"""Models of the diffusers library: `UNet2DModel` in pixel space.

Its timesteps are those of the scheduler's betas, and it predicts the noise or the
velocity of images in [-1, 1].

Reference: Ho et al. 2020, section 4 (linear betas); Nichol and Dhariwal 2021, eq. 17
(cosine betas).
"""

import re
from collections.abc import Mapping

import numpy as np

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
# Attention layers were renamed once.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


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
        values = np.linspace(low, high, steps)
    elif kind == "scaled_linear":
        values = np.linspace(low**0.5, high**0.5, steps) ** 2
    elif kind == "squaredcos_cap_v2":
        angle = (np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2
        abar = np.cos(angle) ** 2
        values = np.minimum(1 - abar[1:] / abar[:-1], 0.999)
    else:
        raise ValueError(
            f"{source}: beta_schedule={kind!r}; must be linear, scaled_linear, "
            "squaredcos_cap_v2, or trained_betas given"
        )
    return values.tolist()


def _renamed(name):
    parts = name.split(".")
    if "attentions" in parts and parts[-2] in RENAMED:
        parts[-2:-1] = RENAMED[parts[-2]].split(".")
    name = ".".join(parts)
    return re.sub(r"samplers\.0\.Conv2d_0\.", "samplers.0.conv.", name)
