"""Images to train on, and their labels, checked before a training begins."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from klip_jax.data.base import ImageSet, Source, image_source, labelled_source

_CHUNK = 1000
_STEPS = 255
"""Of the greys that fit into a byte."""


def as_source(data: ImageSet | Source, classes: int = 0) -> Source:
    """Return a source of images, or with `classes` of (image, label).

    Args:
      data: a set, of which is drawn uniformly, or a source, which stays what it is.
      classes: labels are 0 .. classes - 1; 0 where none are wanted.

    Raises:
      ValueError: if labels are wanted, and missing or no such classes.
    """
    if isinstance(data, Source):
        gives = isinstance(_drawn(data), tuple)
        if gives != bool(classes):
            has = "labels, which this network is not told" if gives else "no labels"
            raise ValueError(f"train.data: a source of images with {has}")
        return data
    if not classes:
        return image_source(data.images)
    labels = checked_labels(data, classes, "train.data")
    source = labelled_source(as_bytes(data), labels)

    def draw(arrays, key):
        image, label = source.draw(arrays, key)
        if image.dtype == jnp.uint8:
            image = image.astype(jnp.float32) / _STEPS
        return image, label

    return Source(draw, source.arrays)


def checked_labels(images: ImageSet, classes: int, where: str) -> Int[np.ndarray, " n"]:
    """Return the class of each image.

    Args:
      images: a set.
      classes: labels must be 0 .. classes - 1.
      where: the set stands in the config, for messages.

    Raises:
      ValueError: if there are no labels, or one is no such class.
    """
    if images.labels is None:
        raise ValueError(
            f"{where}: these images have no labels, but the network knows {classes} "
            "classes; give a file with 'labels' beside its 'images'"
        )
    labels = np.asarray(images.labels, np.int32)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise ValueError(
            f"{where}: the image {images.ids[wrong[0]]!r} has the label "
            f"{labels[wrong[0]]}, but train.net has the classes 0 .. {classes - 1}; "
            "set train.net.classes, or leave such images out"
        )
    return labels


def as_bytes(
    images: ImageSet,
) -> UInt8[np.ndarray, "n h w c"] | Float[np.ndarray, "n h w c"]:
    """Return all images as bytes where n / 255 is what they are, else as they are.

    Bytes are a quarter of the memory, and no second copy of the set is made.
    """
    stored = np.empty((len(images), *images.shape), np.uint8)
    for first in range(0, len(images), _CHUNK):
        index = np.arange(first, min(first + _CHUNK, len(images)))
        greys = _STEPS * images.read(index).images
        stored[index] = np.round(greys)
        if np.abs(stored[index] - greys).max(initial=0) > 1e-3:
            return images.images
    return stored


def _drawn(source):
    return jax.eval_shape(source.draw, source.arrays, jax.random.key(0))
