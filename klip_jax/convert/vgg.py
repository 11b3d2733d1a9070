"""Perceptual distances from the weights of others, which are not shipped.

Download VGG16 of torchvision (https://download.pytorch.org/models/vgg16-397923af.pth,
or model.safetensors of timm/vgg16.tv_in1k on the Hugging Face hub), and take vgg.pth
(weights/v0.1) out of the PyPI package `lpips`, or weights.pt out of `dists-pytorch`:

    python -m klip_jax.main --mode=convert --source=vgg16-397923af.pth,weights.pt \\
        --target=checkpoints/dists.safetensors

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
from klip_jax.convert.base import Converted
from klip_jax.distances.base_vgg import DEPTHS
from klip_jax.distances.perceptual import DISTS, LPIPS

LINE = "lin{}.model.1.weight"


def convert(vgg, weights) -> Converted:
    """Return the weights of DISTS or of LPIPS, whichever the second file is of.

    Args:
      vgg: file with the convolutions.
      weights: file with "alpha" and "beta" [1, C, 1, 1], which are divided by their
        sum as the authors do; or with "lin0.model.1.weight" to "lin4.model.1.weight".

    Returns:
      {"params", "alpha", "beta"} or {"params", "line_0", ..}, and a record that names
      the distance.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a file is broken, or an array is missing or of another shape.
    """
    arrays = read(weights)
    is_lpips = LINE.format(0) in arrays
    made = lpips(vgg, weights) if is_lpips else dists(vgg, weights)
    tree = {"params": made.params["params"]}
    if isinstance(made, LPIPS):
        tree |= {f"line_{k}": line for k, line in enumerate(made.weights)}
    else:
        tree |= {"alpha": made.alpha, "beta": made.beta}
    record = {
        "distance": {"name": f"perceptual.{type(made).__name__}"},
        "source": f"{vgg}, {weights}",
        "data": "unknown",
        "licence": "unknown: see where the weights come from",
    }
    return Converted(tree, record)


def dists(vgg, weights) -> DISTS:
    """Return DISTS of the files of VGG16 and of alpha and beta; see `convert`."""
    params, widths = network(read(vgg), vgg)
    arrays = read(weights)
    count = 3 + sum(widths)
    both = [_vector(arrays, name, count, weights) for name in ("alpha", "beta")]
    total = both[0].sum() + both[1].sum()
    alpha, beta = (jnp.asarray(part / total, jnp.float32) for part in both)
    return DISTS.of({**params, "alpha": alpha, "beta": beta})


def lpips(vgg, weights) -> LPIPS:
    """Return LPIPS of the files of VGG16 and of its linear weights; see `convert`."""
    params, widths = network(read(vgg), vgg)
    arrays = read(weights)
    lines = {
        f"line_{k}": jnp.asarray(_vector(arrays, LINE.format(k), width, weights))
        for k, width in enumerate(widths)
    }
    return LPIPS.of(params | lines)


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
            weight = _named(arrays, f"features.{position}.weight", path)
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
    array = _named(arrays, name, path)
    if array.size != count:
        raise ValueError(f"{path}: {name} has {array.size} numbers, not {count}")
    return array.reshape(count)


def _named(arrays, name, path):
    if name not in arrays:
        raise ValueError(f"{path}: has no {name!r}; klip_jax.convert.vgg says what has")
    return arrays[name]
