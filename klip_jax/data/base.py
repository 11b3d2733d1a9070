"""What a reader returns: images in [0, 1] with what is known of each."""

import os
import pathlib
from collections.abc import Callable
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
      groups: N group names; "id" is in-distribution, all others are anomalous.
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
