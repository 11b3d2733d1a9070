"""What a reader returns: images in [0, 1] with what is known of each."""

import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class ImageSet(NamedTuple):
    """Images and what is known of them; None where it is not known.

    Attributes:
      images: [N, H, W, C] float32 in [0, 1].
      ids: N unique names, safe as file names.
      groups: N group names; "id" is in-distribution, "" is unknown, all others are
        anomalous.
      masks: where the anomaly is, [N, H, W] bool.
      eligible: where an anomaly could have been, [N, H, W] bool.
      body: where the object is at all, [N, H, W] bool.
      patients: N names; images of one patient are resampled together.
    """

    images: np.ndarray
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    masks: np.ndarray | None = None
    eligible: np.ndarray | None = None
    body: np.ndarray | None = None
    patients: tuple[str, ...] | None = None

    def take(self, index) -> "ImageSet":
        """Return the images at `index` (a sequence of integers), in that order."""

        def pick(field):
            if isinstance(field, np.ndarray):
                return field[list(index)]
            return None if field is None else tuple(field[i] for i in index)

        return ImageSet(*map(pick, self))


class Source(NamedTuple):
    """Where training images come from.

    Attributes:
      draw: (arrays, key) -> one image [H, W, C] in [0, 1], traceable by jax.
      arrays: a pytree that `draw` reads, () if it makes its images itself.
    """

    draw: Callable[[Any, Array], Array]
    arrays: Any = ()


def image_source(images: np.ndarray) -> Source:
    """Return a source that draws uniformly from `images` [N, H, W, C] in [0, 1]."""

    def draw(arrays, key):
        return arrays[jax.random.randint(key, (), 0, arrays.shape[0])]

    return Source(draw, jnp.asarray(images))


def join(parts: Sequence[ImageSet]) -> ImageSet:
    """Return the images of all `parts`, in order; they know the same and are one size.

    Raises:
      ValueError: if there are none, or the sizes differ.
    """
    if not parts:
        raise ValueError("data.groups is empty: name at least one group")
    shapes = {part.images.shape[1:]: part.groups[0] for part in reversed(parts)}
    if len(shapes) > 1:
        sizes = ", ".join(f"{shape} in {name!r}" for shape, name in shapes.items())
        raise ValueError(f"the groups differ in size: {sizes}; give images of one size")
    fields = zip(*parts, strict=True)
    return ImageSet(
        *(
            None
            if field[0] is None
            else np.concatenate(field)
            if isinstance(field[0], np.ndarray)
            else sum(field, ())
            for field in fields
        )
    )


def natural(name: str) -> tuple:
    """Return a sorting key that puts ood_2 before ood_10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(p) if i % 2 else p for i, p in enumerate(parts)), name


def scaled(images: np.ndarray, offset: float, scale: float, where: str) -> np.ndarray:
    """Return (images - offset) / scale as float32 [N, H, W, C]; see `check_images`.

    Args:
      images: greys [N, H, W] or [N, H, W, C].
      offset, scale: the grey value that becomes 0, and the range that becomes 1.
      where: they come from, for the message.

    Raises:
      ValueError: if there are none, their rank is wrong, scale is not positive, or a
        pixel is NaN or falls outside [0, 1].
    """
    if not scale > 0:
        raise ValueError(f"data.scale={scale}: the range of grey values is positive")
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or not images.size:
        raise ValueError(f"{where}: images must be [N, H, W(, C)], got {images.shape}")
    images = (images.astype(np.float32) - offset) / scale
    # Stored greys may undershoot the stated range by rounding; true outliers stay.
    slack = 2.0 / scale
    inside = (images > -slack) & (images < 1 + slack)
    return check_images(np.where(inside, np.clip(images, 0, 1), images), where)


def data_root(root: str = "") -> pathlib.Path:
    """Return the folder of the data: `root`, else $KLIP_DATA, else ../shared/data."""
    return pathlib.Path(root or os.environ.get("KLIP_DATA", "") or "../shared/data")


def check_images(images: np.ndarray, where: str) -> np.ndarray:
    """Return `images` as float32; ValueError if a pixel is NaN or outside [0, 1]."""
    images = np.asarray(images, np.float32)
    bad = ~np.isfinite(images)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{where}: {int(bad.sum())} pixels are NaN or infinite, the first at "
            f"[image, row, column, channel] = {list(first)}"
        )
    low, high = float(images.min()), float(images.max())
    if low < -1e-6 or high > 1 + 1e-6:
        raise ValueError(
            f"{where}: images must lie in [0, 1], found [{low:.4g}, {high:.4g}]; set "
            "data.offset and data.scale so that (grey - offset) / scale does"
        )
    return np.clip(images, 0, 1)
