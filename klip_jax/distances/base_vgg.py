"""The convolutions of VGG16, whose activations perceptual distances compare.

Five stages of 3x3 convolutions with ReLU, a grid of half the size at each next one:

    "max"    the largest of 2 x 2 pixels
    "l2"     sqrt(hann * x^2 + 1e-12), hann = (1, 2, 1) x (1, 2, 1) / 16, every second
             pixel (Henaff and Simoncelli): smooth, and with little aliasing

Images are in [0, 1]; they are normalised by ImageNet's mean and deviation inside.

Reference: Simonyan and Zisserman 2015, table 1, column D; Ding et al. 2020 (DISTS),
section 3.1.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the published network."""
DEPTHS = (2, 2, 3, 3, 3)
"""Convolutions of each stage."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG16(nn.Module):
    """Map an image [H, W, 3] to the last activations of each stage, five arrays.

    Attributes:
      pooling: "max" or "l2".
      widths: channels of each stage.

    Raises:
      ValueError: if `pooling` is another word.
    """

    pooling: str = "max"
    widths: Sequence[int] = WIDTHS

    @nn.compact
    def __call__(self, x: Array) -> list[Array]:
        if self.pooling not in ("max", "l2"):
            raise ValueError(f"pooling={self.pooling!r}: must be of ('max', 'l2')")
        mean, std = (jnp.asarray(a, x.dtype) for a in (MEAN, STD))
        h, stages = (x - mean) / std, []
        for stage, (width, depth) in enumerate(zip(self.widths, DEPTHS, strict=True)):
            if stage:
                h = _max(h) if self.pooling == "max" else _l2(h)
            for i in range(depth):
                h = nn.relu(nn.Conv(width, (3, 3), name=f"conv_{stage}_{i}")(h))
            stages.append(h)
        return stages


def _max(h):
    return nn.max_pool(h, (2, 2), (2, 2))


def _l2(h):
    channels = h.shape[-1]
    hann = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])
    kernel = jnp.asarray(np.broadcast_to(hann[:, :, None, None], (3, 3, 1, channels)))
    smoothed = jax.lax.conv_general_dilated(
        (h**2)[None],
        kernel.astype(h.dtype),
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )[0]
    return jnp.sqrt(smoothed + 1e-12)
