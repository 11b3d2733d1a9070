"""Resizing as the published detectors do it: nearest and bilinear, by matrices.

    nearest     x'[i] = x[floor(i s)],                       s = n / m in float32
    bilinear    x'[i] = sum_j M[i, j] x[j],                  M [m, n], rows sum to 1
                M[i, j] = k((j + 1/2 - (i + 1/2) n / m) / w),  k(t) = max(0, 1 - |t|)

from n pixels to m, by rows and by columns. w = 1 without antialiasing, max(1, n / m)
with it; both are half-pixel, and what lies over the border counts as the border pixel
where w = 1, and is left out where w > 1. No two libraries agree: that of torch is
nearest with its product in float32, which differs from whole-number and from float64
arithmetic in some sizes; `jax.image.resize` always antialiases and its nearest is
half-pixel.

Reference: the documentation of torch.nn.functional.interpolate.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from klip_jax.types import Image


def nearest(x: Image, shape: tuple[int, int]) -> Float[Array, "m n c"]:
    """Return `x` at another size [m, n, C], each pixel one of its own.

    Args:
      x: image [H, W, C].
      shape: (m, n).
    """
    rows, columns = (
        nearest_index(size, new) for size, new in zip(x.shape, shape, strict=False)
    )
    return x[rows][:, columns]


def bilinear(
    x: Image, shape: tuple[int, int], *, antialias: bool = False
) -> Float[Array, "m n c"]:
    """Return `x` at another size [m, n, C].

    Args:
      x: image [H, W, C].
      shape: (m, n).
      antialias: widen the kernel where the image shrinks, as newer torchvision does by
        default.
    """
    rows, columns = (
        jnp.asarray(bilinear_matrix(size, new, antialias=antialias), x.dtype)
        for size, new in zip(x.shape, shape, strict=False)
    )
    return jnp.einsum("ih,jw,hwc->ijc", rows, columns, x, precision="highest")


def nearest_index(size: int, new: int) -> Int[np.ndarray, " new"]:
    """Return which of `size` pixels each of `new` pixels is.

    floor(i * (size / new)), quotient and product rounded to float32. For crops whose
    side is traced, stack those of all sides and take a row.
    """
    _check(size, new)
    step = np.float32(size) / np.float32(new)
    nearest = np.floor(np.arange(new, dtype=np.float32) * step).astype(np.int32)
    return np.minimum(nearest, size - 1)


@functools.cache
def bilinear_matrix(
    size: int, new: int, *, antialias: bool = False
) -> Float[np.ndarray, "new size"]:
    """Return M of the module's docstring, float32; do not write into it."""
    _check(size, new)
    step = np.float32(size) / np.float32(new)
    width = max(np.float32(1), step) if antialias else np.float32(1)
    centre = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * step
    centre -= np.float32(0.5)
    if not antialias:
        # The border pixel stands for what is beyond it.
        centre = np.clip(centre, 0, size - 1)
    pixels = np.arange(size, dtype=np.float32)
    weights = np.maximum(0, 1 - np.abs(pixels - centre[:, None]) / width)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _check(size, new):
    if size < 1 or new < 1:
        raise ValueError(f"an image cannot go from {size} pixels to {new}: at least 1")
