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
from jaxtyping import Bool, Float, Shaped

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
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    shape: tuple[int, ...]
    reader: Callable[[np.ndarray], Images]
    regions: tuple[str, ...] = ()
    patients: tuple[str, ...] | None = None

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

        def pick(names):
            return None if names is None else tuple(names[i] for i in index)

        return dataclasses.replace(
            self,
            ids=pick(self.ids),
            groups=pick(self.groups),
            patients=pick(self.patients),
            reader=lambda some: self.reader(index[some]),
        )

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
        """Return a SHA-256 over names, pixels and regions; reads every image once.

        Images that changed under the same file name are another set by it.
        """
        names = repr((self.ids, self.groups, self.patients, self.shape, self.regions))
        digest = hashlib.sha256(names.encode())
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
) -> ImageSet:
    """Return the set of images that are in memory; arguments as of `ImageSet`.

    Raises:
      ValueError: if a region has another size than the images.
    """
    given = zip(REGIONS, (masks, eligible, body), strict=True)
    known = {name: array for name, array in given if array is not None}
    for name, array in known.items():
        if array.shape != images.shape[:3]:
            raise ValueError(
                f"{name} are {array.shape}, but the images are {images.shape[:3]}"
            )

    def reader(index):
        return Images(
            np.asarray(images[index], np.float32),
            **{name: np.asarray(array[index], bool) for name, array in known.items()},
        )

    names = None if patients is None else tuple(patients)
    shape = tuple(images.shape[1:])
    return ImageSet(tuple(ids), tuple(groups), shape, reader, tuple(known), names)


class Source(NamedTuple):
    """Where training images come from.

    Attributes:
      draw: (arrays, key) -> one image [H, W, C] in [0, 1], traceable by jax.
      arrays: a pytree that `draw` reads, () if it makes its images itself.
    """

    draw: Callable[[Any, Array], Array]
    arrays: Any = ()


def image_source(images: Float[np.ndarray, "n h w c"]) -> Source:
    """Return a source that draws uniformly from `images` in [0, 1]."""

    def draw(arrays, key):
        return arrays[jax.random.randint(key, (), 0, arrays.shape[0])]

    return Source(draw, jnp.asarray(images))


def join(parts: Sequence[ImageSet]) -> ImageSet:
    """Return the images of all `parts`, in order; they are of one size.

    Where only some parts know a region, the images of the others have no anomaly
    marked, are eligible everywhere and all body.

    Raises:
      ValueError: if there are none, or the sizes differ.
    """
    if not parts:
        raise ValueError("data.groups is empty: name at least one group")
    shapes = {part.shape: part.groups[0] for part in reversed(parts) if len(part)}
    if len(shapes) > 1:
        sizes = ", ".join(f"{shape} in {name!r}" for shape, name in shapes.items())
        raise ValueError(f"the groups differ in size: {sizes}; give images of one size")
    regions = tuple(r for r in REGIONS if any(r in part.regions for part in parts))
    ends = np.cumsum([len(part) for part in parts])
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])

    def reader(index):
        found = None
        for k in np.unique(owner[index]):
            here = np.flatnonzero(owner[index] == k)
            some = parts[k].read(index[here] - (ends[k] - len(parts[k])))
            if found is None:
                n, shape = len(index), some.images.shape[1:]
                found = Images(
                    np.empty((n, *shape), np.float32),
                    **{r: np.full((n, *shape[:2]), r != "masks") for r in regions},
                )
            for target, pixels in zip(found, some, strict=True):
                if pixels is not None:
                    target[here] = pixels
        return parts[0].read(index) if found is None else found

    def names(field):
        return sum((getattr(part, field) for part in parts), ())

    known = all(part.patients is not None for part in parts)
    patients = names("patients") if known else None
    return ImageSet(
        names("ids"), names("groups"), parts[0].shape, reader, regions, patients
    )


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
