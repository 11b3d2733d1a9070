"""Image sets one after the other, as one."""

from collections.abc import Sequence

import numpy as np

from klip_jax.data.base import REGIONS, Images, ImageSet
from klip_jax.data.base_geometry import Fit


def join(parts: Sequence[ImageSet]) -> ImageSet:
    """Return the images of all `parts`, in order; they are of one size.

    Where only some parts know a region, the images of the others have no anomaly
    marked, are eligible everywhere and all body. Patients and labels are known where
    all parts know them, and so are places; the spacing, where it is the same.

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
        images = None
        for k in np.unique(owner[index]):
            here = np.flatnonzero(owner[index] == k)
            some = parts[k].read(index[here] - (ends[k] - len(parts[k])))
            if images is None:
                n, shape = len(index), some.images.shape[1:]
                images = Images(
                    np.empty((n, *shape), np.float32),
                    **{r: np.full((n, *shape[:2]), r != "masks") for r in regions},
                )
            for target, pixels in zip(images, some, strict=True):
                if pixels is not None:
                    target[here] = pixels
        return parts[0].read(index) if images is None else images

    def joined(field):
        values = [getattr(part, field) for part in parts]
        return None if None in values else sum(values, ())

    def fits_of(part):
        size = part.shape[:2]
        same = Fit(size, (0, 0, *size), size, (0, 0), size)
        return part.fits or (same,) * len(part)

    fields = "ids", "groups", "patients", "labels", "places"
    ids, groups, patients, labels, places = map(joined, fields)
    fits = None
    if any(part.fits is not None for part in parts):
        fits = sum(map(fits_of, parts), ())
    spacings = {part.spacing for part in parts}
    spacing = spacings.pop() if len(spacings) == 1 else None

    def before(i):
        k = owner[i]
        return parts[k].input_of(int(i - (ends[k] - len(parts[k]))))

    return ImageSet(
        *(ids, groups, parts[0].shape, reader, regions, patients, labels),
        *(spacing, fits, places, before),
    )
