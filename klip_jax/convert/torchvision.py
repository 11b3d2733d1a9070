"""ResNets of torchvision, timm and OpenOOD, with their running statistics.

    https://download.pytorch.org/models/resnet50-0676ba61.pth   76.1 % of ImageNet

torchvision and timm call the convolution beside a block `downsample`, OpenOOD's
ResNet18_32x32 `shortcut`; the rest of their names is the same. Images are normalised by
the mean and standard deviation of ImageNet, or where the stem is that for CIFAR by
those of CIFAR-10, as both are used with these weights.

Reference: He et al. 2016, tables 1 and 6; Zhang et al. 2023, OpenOOD v1.5.
"""

import re
from collections.abc import Mapping

import numpy as np
from flax import traverse_util

from klip_jax.convert.base import Converted
from klip_jax.convert.state_dict import count

MARK = "layer1.0.conv1.weight"
"""A name that shows this layout."""
PIXELS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), 32),
}
"""{stem: mean and standard deviation by channel, side of the images}."""
LEAVES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}
"""Of a normalisation."""


def convert(
    arrays: Mapping[str, np.ndarray], source: str = "", *, size: int = 0
) -> Converted:
    """Return the variables of a `ResNet`, and a record without a prior.

    Args:
      arrays: {name: array}, as torch names and lays them out.
      source: where they come from, for the record and messages.
      size: side of the images, pixels; 0 is 224, or 32 with the stem for CIFAR.

    Returns:
      {"params", "batch_stats"}, and the record.

    Raises:
      ValueError: if they are not those of a ResNet that we have.
    """
    for name in ("conv1.weight", "fc.weight"):
        if name not in arrays:
            raise ValueError(f"{source}: not a ResNet of torchvision: it has no {name}")
    stem = "imagenet" if arrays["conv1.weight"].shape[-1] == 7 else "cifar"
    stages = [count(arrays, f"layer{i}.{{}}.conv1.weight") for i in range(1, 5)]
    mean, std, side = PIXELS[stem]
    net = dict(
        name="resnet.ResNet",
        stages=[n for n in stages if n],
        width=arrays["conv1.weight"].shape[0],
        classes=arrays["fc.weight"].shape[0],
        block="bottleneck" if "layer1.0.conv3.weight" in arrays else "basic",
        stem=stem,
        mean=list(mean),
        std=list(std),
    )
    flat = {}
    for name, array in arrays.items():
        if not name.endswith("num_batches_tracked"):
            path, array = _renamed(name, np.asarray(array, np.float32))
            flat[path] = array
    shape = [size or side, size or side, arrays["conv1.weight"].shape[1]]
    more = {"source": source, "data": "unknown"}
    more["licence"] = "unknown: see where the weights come from"
    tree = traverse_util.unflatten_dict(flat)
    return Converted(tree, {"net": net, "image_shape": shape, **more})


def _renamed(name, array):
    """Return (path, array) in our tree of an array of torch."""
    *parts, leaf = name.split(".")
    module = "/".join(parts)
    module = re.sub(r"^layer(\d)/(\d+)/", _block, module)
    module = re.sub(r"(downsample|shortcut)/0$", "shortcut_conv", module)
    module = re.sub(r"(downsample|shortcut)/1$", "shortcut_norm", module)
    module = {"conv1": "stem_conv", "bn1": "stem_norm", "fc": "dense"}.get(
        module, module
    )
    module = re.sub(r"(conv|bn)(\d)$", _numbered, module)
    if array.ndim == 4:
        room, leaf, array = "params", "kernel", array.transpose(2, 3, 1, 0)
    elif array.ndim == 2:
        room, leaf, array = "params", "kernel", array.T
    else:
        room, leaf = LEAVES.get(leaf, ("params", leaf))
    return (room, *module.split("/"), leaf), array


def _block(match):
    return f"layers_{int(match[1]) - 1}_{match[2]}/"


def _numbered(match):
    kind = "conv" if match[1] == "conv" else "norm"
    return f"{kind}_{int(match[2]) - 1}"
