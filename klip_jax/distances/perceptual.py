"""Distances in the activations of VGG16: LPIPS and DISTS, with trained weights.

    LPIPS   sum_k mean_{h,w} sum_c w_kc (n(f_k(a)) - n(f_k(b)))_c^2
    DISTS   1 - sum_kc (alpha_kc texture_kc + beta_kc structure_kc)

        texture   = (2 m_a m_b + c) / (m_a^2 + m_b^2 + c)
        structure = (2 v_ab + c) / (v_a + v_b + c),    c = 1e-6

over the stages k = 1..5 of the network, of DISTS the image itself as k = 0; n(f) is f
over its length across channels, m, v are means, variances and the covariance of a
channel over all pixels. Both are callables of two images [H, W, 3] in [0, 1] that hold
their weights, made by `convert.vgg` from files that are not shipped: see there.

Departures: images are not resized. The authors of DISTS resize to 256 pixels where an
image is larger.

Reference: Zhang et al. 2018, eq. 1 (LPIPS, its version 0.1); Ding et al. 2020, eqs. 4
to 6 (DISTS).
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.distances.base_vgg import VGG16
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

    def __call__(self, a: Image, b: Image) -> Float[Array, ""]:
        """Return the distance of two images in [0, 1]."""
        both = (self.net.apply(self.params, x) for x in (a, b))
        found = jnp.zeros((), a.dtype)
        for w, one, other in zip(self.weights, *both, strict=True):
            gap = (_direction(one) - _direction(other)) ** 2
            found += jnp.mean(jnp.matmul(gap, w, precision="highest"))
        return found


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


def _direction(x):
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + _SMALL)
