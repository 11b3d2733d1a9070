"""Named arrays out of a file of weights, whatever holds them.

Read are .safetensors, and what torch.save writes (.pt, .pth, .ckpt, .bin, .pkl) through
`pickles`, which executes nothing. Trainers keep the weights one level down and put a
word before their names; both are taken off.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from klip_jax.convert import pickles

LEVELS = ("state_dict", "ema", "model", "net")
"""Where trainers keep the weights; the first that is there is taken."""
PREFIX = "module."
"""What torch's parallel modules put before every name."""


def read(path) -> dict[str, np.ndarray]:
    """Return {name: array} of a file; empty where it holds no arrays by name.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is broken or wants to execute something.
    """
    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        return named(pickles.load(path))
    try:
        return named(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None


def named(content) -> dict[str, np.ndarray]:
    """Return the arrays of what was read, at whatever level they are.

    Args:
      content: a state dict, one of a trainer around it, or anything else.
    """
    if not isinstance(content, Mapping):
        return {}
    inner = [content[k] for k in LEVELS if isinstance(content.get(k), Mapping)]
    arrays = pickles.arrays(inner[0] if inner else content)
    return {name.removeprefix(PREFIX): array for name, array in arrays.items()}


def part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with `prefix`, without it."""
    return {
        k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)
    }


def count(arrays: Mapping[str, np.ndarray], pattern: str) -> int:
    """Return for how many i = 0, 1, 2, ... the name `pattern.format(i)` is there."""
    i = 0
    while pattern.format(i) in arrays:
        i += 1
    return i
