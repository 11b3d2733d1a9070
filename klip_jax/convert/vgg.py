"""Perceptual distances from the weights of others, which are not shipped.

Download VGG16 of torchvision (https://download.pytorch.org/models/vgg16-397923af.pth,
or model.safetensors of timm/vgg16.tv_in1k on the Hugging Face hub), and take vgg.pth
(weights/v0.1) out of the PyPI package `lpips` and weights.pt out of `dists-pytorch`.

Files are .safetensors, .npz, or of torch.save, of which nothing is executed. Names are
theirs: features.N.weight and .bias of the convolutions, lin0 to lin4.model.1.weight,
alpha and beta.
"""

import pathlib
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file

from klip_jax.convert import pickles
from klip_jax.distances.base_vgg import DEPTHS, VGG16
from klip_jax.distances.perceptual import DISTS, LPIPS


def dists(vgg, weights) -> DISTS:
    """Return DISTS of the files of VGG16 and of alpha and beta.

    alpha and beta are divided by their sum, as the authors do.

    Args:
      vgg: file with the convolutions.
      weights: file with "alpha" and "beta" [1, C, 1, 1].

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a file is broken, or an array is missing or of another shape.
    """
    params, widths = network(read(vgg), vgg)
    found = read(weights)
    count = 3 + sum(widths)
    both = [_vector(found, name, count, weights) for name in ("alpha", "beta")]
    total = both[0].sum() + both[1].sum()
    alpha, beta = (jnp.asarray(part / total, jnp.float32) for part in both)
    return DISTS(params, alpha, beta, VGG16("l2", widths))


def lpips(vgg, weights) -> LPIPS:
    """Return LPIPS of the files of VGG16 and of its linear weights.

    Args:
      vgg: file with the convolutions.
      weights: file with "lin0.model.1.weight" to "lin4.model.1.weight" [1, C, 1, 1].

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a file is broken, or an array is missing or of another shape.
    """
    params, widths = network(read(vgg), vgg)
    found = read(weights)
    lines = tuple(
        jnp.asarray(_vector(found, f"lin{k}.model.1.weight", width, weights))
        for k, width in enumerate(widths)
    )
    return LPIPS(params, lines, VGG16("max", widths))


def read(path) -> dict[str, np.ndarray]:
    """Return {name: array} of a file; numbers become float32.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it cannot be read.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; klip_jax.convert.vgg says more")
    try:
        if path.suffix == ".safetensors":
            arrays = load_file(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
        else:
            arrays = pickles.arrays(pickles.load(path))
    except (SafetensorError, OSError, AttributeError) as error:
        raise ValueError(f"{path}: not readable as weights ({error})") from None
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def network(arrays: Mapping[str, np.ndarray], path="") -> tuple[dict, tuple[int, ...]]:
    """Return the parameters of `VGG16`, and the widths of its stages.

    Args:
      arrays: "features.N.weight" [out, in, 3, 3] and "features.N.bias" [out].
      path: where they are from, for messages.

    Raises:
      ValueError: naming the first array that is missing or of another shape.
    """
    flat, widths, position, channels = {}, [], 0, 3
    for stage, depth in enumerate(DEPTHS):
        for i in range(depth):
            weight = _found(arrays, f"features.{position}.weight", path)
            width = weight.shape[0]
            if weight.shape != (width, channels, 3, 3):
                raise ValueError(
                    f"{path}: features.{position}.weight is {weight.shape}, where "
                    f"VGG16 has (out, {channels}, 3, 3)"
                )
            bias = _vector(arrays, f"features.{position}.bias", width, path)
            name = f"conv_{stage}_{i}"
            flat[name, "kernel"] = jnp.asarray(weight.transpose(2, 3, 1, 0))
            flat[name, "bias"] = jnp.asarray(bias)
            channels, position = width, position + 2  # a ReLU between
        widths.append(channels)
        position += 1  # a pooling
    return {"params": traverse_util.unflatten_dict(flat)}, tuple(widths)


def _vector(arrays, name, count, path):
    found = _found(arrays, name, path)
    if found.size != count:
        raise ValueError(f"{path}: {name} has {found.size} numbers, not {count}")
    return found.reshape(count)


def _found(arrays, name, path):
    if name not in arrays:
        raise ValueError(f"{path}: has no {name!r}; klip_jax.convert.vgg says what has")
    return arrays[name]
