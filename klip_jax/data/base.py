"""What a reader returns: images in [0, 1] with what is known of each, read when asked.

A set of images names them all and reads those that are asked for: `run` takes a chunk,
`report` the few it shows, a test all. A region that nobody knows is None, never an
array of False, which would say that it is empty.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Shaped

from klip_jax.data.base_geometry import Fit, Place

REGIONS = ("masks", "eligible", "body")
_CHUNK = 64  # images in memory while a digest is made


class Images(NamedTuple):
    """Some images and what is known of their pixels; None where it is not known.

    Attributes:
      images: in [0, 1].
      masks: where the anomaly is.
      eligible: where an anomaly could have been.
      body: where the object is at all.
    """

    images: Float[np.ndarray, "n h w c"]
    masks: Bool[np.ndarray, "n h w"] | None = None
    eligible: Bool[np.ndarray, "n h w"] | None = None
    body: Bool[np.ndarray, "n h w"] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Images by name; pixels are read when asked for.

    Attributes:
      ids: N names.
      groups: N group names; "id" is in-distribution, "" is unknown, all others are
        anomalous.
      shape: (H, W, C) of every image.
      reader: (indices [n] int64) -> `Images` of n images; what it raises names a file.
      regions: which of `REGIONS` the reader knows.
      patients: N names; images of one patient are resampled together.
      labels: the class of each image, -1 where it is none of the classes of "id", as in
        every other group; None where nobody knows.
      spacing: millimetres from pixel to pixel, down the rows and along them; None where
        nobody knows or they differ.
      fits: what was done to the size of each image, to bring its maps back; None where
        images have the size of their files.
      places: where on the disk each image lies; None where it was made or lies in an
        array of many.
      before: (index of an image) -> the image [H, W, C] in [0, 1] at the size of its
        file; None where all have that.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    shape: tuple[int, ...]
    reader: Callable[[np.ndarray], Images]
    regions: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None
    labels: tuple[int, ...] | None = None
    spacing: tuple[float, float] | None = None
    fits: tuple[Fit, ...] | None = None
    places: tuple[Place, ...] | None = None
    before: Callable[[int], Float[np.ndarray, "H W C"]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, indices: Sequence[int] | np.ndarray) -> Images:
        """Read the images at `indices` (integers), in that order.

        Raises:
          ValueError: if a file is broken, or a pixel NaN or outside [0, 1].
        """
        return self.reader(np.asarray(indices, np.int64))

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """Return the set of the images at `indices`, in that order; reads nothing."""
        index = np.asarray(indices, np.int64)

        def pick(known):
            return None if known is None else tuple(known[i] for i in index)

        return dataclasses.replace(
            self,
            ids=pick(self.ids),
            groups=pick(self.groups),
            patients=pick(self.patients),
            labels=pick(self.labels),
            fits=pick(self.fits),
            places=pick(self.places),
            before=lambda i: self.input_of(int(index[i])),
            reader=lambda some: self.reader(index[some]),
        )

    def input_of(self, i: int) -> Float[np.ndarray, "H W C"]:
        """Read the image at index `i` at the size of its file, in [0, 1]."""
        return self.read([i]).images[0] if self.before is None else self.before(i)

    @functools.cached_property
    def _all(self) -> Images:
        return self.read(np.arange(len(self)))

    @property
    def images(self) -> Float[np.ndarray, "n h w c"]:
        """All images in memory, for small sets."""
        return self._all.images

    @property
    def masks(self) -> Bool[np.ndarray, "n h w"] | None:
        """All masks in memory."""
        return self._all.masks

    @property
    def eligible(self) -> Bool[np.ndarray, "n h w"] | None:
        """All eligible regions in memory."""
        return self._all.eligible

    @property
    def body(self) -> Bool[np.ndarray, "n h w"] | None:
        """All bodies in memory."""
        return self._all.body

    def digest(self) -> str:
        """Return a SHA-256 over all that is known; reads every image once.

        Images that changed under the same file name are another set by it.
        """
        names = self.ids, self.groups, self.patients, self.shape, self.regions
        # Sets that nobody labelled are called what they were before there were labels.
        known = names if self.labels is None else (*names, self.labels)
        digest = hashlib.sha256(repr(known).encode())
        for first in range(0, len(self), _CHUNK):
            for array in self.read(np.arange(first, min(first + _CHUNK, len(self)))):
                if array is not None:
                    digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def in_memory(
    images: Shaped[np.ndarray, "n h w c"],
    ids: Sequence[str],
    groups: Sequence[str],
    *,
    masks: Bool[np.ndarray, "..."] | None = None,
    eligible: Bool[np.ndarray, "..."] | None = None,
    body: Bool[np.ndarray, "..."] | None = None,
    patients: Sequence[str] | None = None,
    labels: Sequence[int] | Int[np.ndarray, " n"] | None = None,
) -> ImageSet:
    """Return the set of images that are in memory; arguments as of `ImageSet`.

    Raises:
      ValueError: if a region has another size than the images, or labels are missing.
    """
    given = zip(REGIONS, (masks, eligible, body), strict=True)
    known = {name: array for name, array in given if array is not None}
    for name, array in known.items():
        if array.shape != images.shape[:3]:
            raise ValueError(
                f"{name} are {array.shape}, but the images are {images.shape[:3]}"
            )

    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(labels)} labels for {len(images)} images: one for each")

    def reader(index):
        return Images(
            np.asarray(images[index], np.float32),
            **{name: np.asarray(array[index], bool) for name, array in known.items()},
        )

    return ImageSet(
        tuple(ids),
        tuple(groups),
        tuple(images.shape[1:]),
        reader,
        tuple(known),
        patients=None if patients is None else tuple(patients),
        labels=None if labels is None else tuple(int(label) for label in labels),
    )


class Source(NamedTuple):
    """Where training images come from.

    Attributes:
      draw: (arrays, key) -> one image [H, W, C] in [0, 1], traceable by jax; a
        labelled source gives (image, label) instead.
      arrays: a pytree that `draw` reads, () if it makes its images itself.
    """

    draw: Callable[[Any, Array], Any]
    arrays: Any = ()


def image_source(images: Float[np.ndarray, "n h w c"]) -> Source:
    """Return a source that draws uniformly from `images` in [0, 1]."""

    def draw(arrays, key):
        return arrays[jax.random.randint(key, (), 0, arrays.shape[0])]

    return Source(draw, jnp.asarray(images))


def labelled_source(
    images: Shaped[np.ndarray, "n h w c"], labels: Sequence[int] | Int[np.ndarray, " n"]
) -> Source:
    """Return a source that draws uniformly (image as it is given, its label int32).

    Raises:
      ValueError: if an image has no label, or one that is no class.
    """
    classes = np.asarray(labels, np.int32)
    if classes.shape != images.shape[:1]:
        raise ValueError(
            f"{len(classes)} labels for {len(images)} images: one for each"
        )
    if (classes < 0).any():
        first = int(np.flatnonzero(classes < 0)[0])
        raise ValueError(
            f"image {first} has the label {classes[first]}, which is no class; train "
            'on images of the group "id" alone'
        )

    def draw(arrays, key):
        index = jax.random.randint(key, (), 0, arrays[0].shape[0])
        return arrays[0][index], arrays[1][index]

    return Source(draw, (jnp.asarray(images), jnp.asarray(classes)))


def count_of(per_group: int, available: int, where: str) -> int:
    """Return how many images of a group are read: `per_group`, or all where it is 0.

    Raises:
      ValueError: if it is negative or more than there are.
    """
    if per_group < 0:
        raise ValueError(f"data.per_group={per_group}: at least 1, or 0 for all")
    if per_group > available:
        raise ValueError(
            f"data.per_group={per_group}, but {where} has {available} images; give "
            "fewer, or 0 for all"
        )
    return per_group or available


def data_root(root: str = "") -> pathlib.Path:
    """Return the folder of the data: `root`, else $KLIP_DATA, else ../shared/data."""
    return pathlib.Path(root or os.environ.get("KLIP_DATA", "") or "../shared/data")


def natural(name: str) -> tuple:
    """Return a sorting key that puts ood_2 before ood_10."""
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(p) if i % 2 else p for i, p in enumerate(parts)), name
