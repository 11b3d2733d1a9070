"""A share of any image set, by patient: some to train on, the others held out.

    data=dict(
        name="part.load",
        data=dict(name="folder.load", folder="slices"),
        share=(0.0, 0.9),
    )

A patient's place in [0, 1) is made of its name, so that it does not move when others
are added, and the shares (0, 0.9) and (0.9, 1) have no patient in common. Where nobody
knows patients an image is one of its own.
"""

import hashlib
from typing import Any

import numpy as np

from klip_jax.data.base import ImageSet

_LARGEST = 2.0**64


def load(
    *,
    data: Any,
    share: tuple[float, float] = (0.0, 0.9),
    groups: tuple[str, ...] = (),
    most: int = 0,
) -> ImageSet:
    """Return the images of `data` whose patients lie in a share of all.

    Args:
      data: a set, in a config dict(name=..., ...) of a reader.
      share: (lowest, highest) place of the patients; 0 <= lowest < highest <= 1.
      groups: those to keep; empty for all.
      most: at most so many images, evenly spaced; 0 for all.

    Raises:
      ValueError: if the share is none, or nothing lies in it.
    """
    if not isinstance(data, ImageSet):
        raise ValueError(
            f"data.data is a {type(data).__name__}, not an ImageSet; give "
            "dict(name=..., ...) of a reader"
        )
    low, high = share
    if not 0 <= low < high <= 1:
        raise ValueError(f"data.share={share}: give 0 <= lowest < highest <= 1")
    names = data.ids if data.patients is None else data.patients
    places = np.array([place(name) for name in names])
    kept = (low <= places) & (places < high)
    if groups:
        kept &= np.isin(data.groups, groups)
    index = np.flatnonzero(kept)
    if not index.size:
        raise ValueError(
            f"none of the {len(set(names))} patients of {len(data)} images lies in the "
            f"share {share}: give more images, or another share"
        )
    if 0 < most < index.size:
        index = index[np.linspace(0, index.size - 1, most).round().astype(int)]
    return data.take(index)


def place(name: str) -> float:
    """Return the place in [0, 1) of a patient, by the SHA-256 of its name."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / _LARGEST
