"""Distances in the activations of VGG16: LPIPS and DISTS, with trained weights.

    LPIPS   sum_k mean_{h,w} sum_c w_kc (n(f_k(a)) - n(f_k(b)))_c^2
    DISTS   1 - sum_kc (alpha_kc texture_kc + beta_kc structure_kc)

        texture   = (2 m_a m_b + c) / (m_a^2 + m_b^2 + c)
        structure = (2 v_ab + c) / (v_a + v_b + c),    c = 1e-6

over the stages k = 1..5 of the network, of DISTS the image itself as k = 0; n(f) is f
over its length across channels, m, v are means, variances and the covariance of a
channel over all pixels. Both are callables of two images [H, W, 3] in [0, 1] that hold
their weights, of files that are not shipped: see `convert.vgg`. A run reads them from a
file of ours, perceptual=dict(weights="dists"); see `hub.load_perceptual`.

Departures: images are not resized. The authors of DISTS resize to 256 pixels where an
image is larger.

Reference: Zhang et al. 2018, eq. 1 (LPIPS, its version 0.1); Ding et al. 2020, eqs. 4
to 6 (DISTS).
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.distances.base_vgg import DEPTHS, VGG16
from klip_jax.types import Image

_SMALL, _C = 1e-10, 1e-6


@struct.dataclass
class LPIPS:
    """The weighted distance of the directions of activations, >= 0.

    Attributes:
      params: of the network.
      weights: w_k, one array [C_k] for each stage.
      net: VGG16 with the pooling "max".
    """

    params: Any
    weights: tuple[Array, ...]
    net: VGG16 = struct.field(pytree_node=False, default=VGG16("max"))

    @classmethod
    def of(cls, weights: Mapping[str, Any]) -> "LPIPS":
        """Make it of {"params", "line_0", .. "line_4"}, as a file of ours holds them.

        Raises:
          ValueError: naming the first array that is missing or of another shape.
        """
        widths = widths_of(weights)
        lines = tuple(
            _vector(weights, f"line_{k}", width) for k, width in enumerate(widths)
        )
        return cls({"params": weights["params"]}, lines, VGG16("max", widths))

    def __call__(self, a: Image, b: Image) -> Float[Array, ""]:
        """Return the distance of two images in [0, 1]."""
        both = (self.net.apply(self.params, x) for x in (a, b))
        total = jnp.zeros((), a.dtype)
        for w, one, other in zip(self.weights, *both, strict=True):
            gap = (_direction(one) - _direction(other)) ** 2
            total += jnp.mean(jnp.matmul(gap, w, precision="highest"))
        return total


@struct.dataclass
class DISTS:
    """The distance of texture and structure, 0 for equal images.

    Attributes:
      params: of the network.
      alpha: of the textures, one number a channel of the image and of each stage.
      beta: of the structures; with alpha they sum to 1.
      net: VGG16 with the pooling "l2".
    """

    params: Any
    alpha: Float[Array, " k"]
    beta: Float[Array, " k"]
    net: VGG16 = struct.field(pytree_node=False, default=VGG16("l2"))

    @classmethod
    def of(cls, weights: Mapping[str, Any]) -> "DISTS":
        """Make it of {"params", "alpha", "beta"}, as a file of ours holds them.

        Raises:
          ValueError: naming the first array that is missing or of another shape.
        """
        widths = widths_of(weights)
        count = 3 + sum(widths)
        alpha, beta = (_vector(weights, name, count) for name in ("alpha", "beta"))
        return cls({"params": weights["params"]}, alpha, beta, VGG16("l2", widths))

    def __call__(self, a: Image, b: Image) -> Float[Array, ""]:
        """Return the distance of two images in [0, 1], or around it."""
        texture, structure = self.similarities(a, b)
        return 1 - jnp.sum(self.alpha * texture + self.beta * structure)

    def similarities(
        self, a: Image, b: Image
    ) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
        """Return the texture and the structure of each channel, at most 1."""
        pairs = zip(
            *([x, *self.net.apply(self.params, x)] for x in (a, b)), strict=True
        )
        textures, structures = [], []
        for one, other in pairs:
            mean_a, mean_b = one.mean((0, 1)), other.mean((0, 1))
            # About the means: the mean of squares less the square of the mean cancels.
            gap_a, gap_b = one - mean_a, other - mean_b
            var_a, var_b = (gap_a**2).mean((0, 1)), (gap_b**2).mean((0, 1))
            shared = (gap_a * gap_b).mean((0, 1))
            textures.append((2 * mean_a * mean_b + _C) / (mean_a**2 + mean_b**2 + _C))
            structures.append((2 * shared + _C) / (var_a + var_b + _C))
        return jnp.concatenate(textures), jnp.concatenate(structures)


def widths_of(weights: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the channels of each stage of the VGG16 in {"params", ...}.

    Raises:
      ValueError: naming the first array that is missing or of another shape.
    """
    network, widths, channels = weights.get("params", {}), [], 3
    for stage, depth in enumerate(DEPTHS):
        for i in range(depth):
            layer = network.get(f"conv_{stage}_{i}", {})
            if not {"kernel", "bias"} <= layer.keys():
                raise ValueError(f"params/conv_{stage}_{i} is missing")
            shape, width = layer["kernel"].shape, layer["bias"].shape[-1]
            if shape != (3, 3, channels, width):
                raise ValueError(
                    f"params/conv_{stage}_{i}/kernel is {shape}, where VGG16 has "
                    f"{(3, 3, channels, width)}"
                )
            channels = width
        widths.append(channels)
    return tuple(widths)


def _vector(weights, name, count):
    array = weights.get(name)
    if array is None or array.shape != (count,):
        shape = "missing" if array is None else array.shape
        raise ValueError(f"{name} is {shape}, where {count} numbers are needed")
    return jnp.asarray(array)


def _direction(x):
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + _SMALL)
