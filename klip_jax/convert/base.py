"""What conversions share: from the layout of torch to that of Flax, and the record."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from flax import traverse_util


class Converted(NamedTuple):
    """Weights that are ours now.

    Attributes:
      params: {"params": nested dict of float32 arrays}.
      record: JSON-serialisable description, as `checkpoint.save_weights` takes it.
    """

    params: dict
    record: dict


def record(net: dict, prior: dict, image_shape, source: str, **more) -> dict:
    """Return the record of weights about whose training nothing is known.

    Args:
      net, prior: as in a config: name and settings.
      image_shape: (H, W, C).
      source: where they come from.
      more: further fields.
    """
    return {
        "net": net,
        "prior": prior,
        "image_shape": [int(n) for n in image_shape],
        "errors": {"levels": [], "errors": []},
        "source": source,
        "data": "unknown",
        "licence": "unknown: see where the weights come from",
        **more,
    }


def flax_tree(arrays: Mapping[str, np.ndarray]) -> dict:
    """Return the parameters of torch modules as Flax has them.

    a.0.b.weight [out, in, H, W] becomes a_0/b/kernel [H, W, in, out], one of two axes
    is transposed, one of one axis is the scale of a normalisation.

    Args:
      arrays: {dotted name: array}.
    """
    flat = {}
    for name, array in arrays.items():
        *path, leaf = re.sub(r"\.(\d+)(?=\.)", r"_\1", name).split(".")
        array = np.asarray(array)
        if leaf == "weight":
            leaf = "scale" if array.ndim == 1 else "kernel"
            if array.ndim == 2:
                array = array.T
            elif array.ndim == 4:
                array = array.transpose(2, 3, 1, 0)
        flat[(*path, leaf)] = np.asarray(array, np.float32)
    return {"params": traverse_util.unflatten_dict(flat)}
