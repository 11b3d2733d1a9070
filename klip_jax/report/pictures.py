"""What the page shows of single images, read from the store and the data."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from klip_jax.data.base import ImageSet
from klip_jax.report import pixels
from klip_jax.report.maps import read
from klip_jax.report.table import Table
from klip_jax.report.text import name_of
from klip_jax.run.store import Store

SMALL = 128
"""Pixels of the longer side of the other detectors' maps."""


class Shown(NamedTuple):
    """The arrays of one image.

    Attributes:
      shape: (rows, columns) of the image; pictures may be shrunk.
      truth: what the data know, where a scanner looked at it; else None.
      images: pictures in [0, 1] by their title; maps are laid over the last one.
      extras: further ones, that the main detector has kept.
      heatmaps: by the name of the detector, shrunk.
      peak: (row, column) of the highest pixel of the main map that is not padded; None
        without a map.
      outline: around what is odd, as the path of an SVG; "" if nobody knows.
    """

    shape: tuple[int, int]
    truth: Float[np.ndarray, "h w c"] | None
    images: dict[str, Float[np.ndarray, "h w c"]]
    extras: dict[str, Float[np.ndarray, "h w c"]]
    heatmaps: dict[str, Float[np.ndarray, "_ _"]]
    peak: tuple[int, int] | None
    outline: str


def read_shown(
    store: Store, table: Table, images: ImageSet | None, row: int, order: list[str]
) -> Shown:
    """Return what is shown of one image.

    Args:
      store, table: of the run.
      images: the data; None if they are not there.
      row: of the table.
      order: of the detectors, whose maps are shown so.
    """
    index, stored = table.index[row : row + 1], store.array_names()
    known = None if images is None else images.read(index)
    measured = "reconstruction/naive" in stored
    pictures = {}
    if known is not None and not measured:
        pictures["Image"] = known.images[0]
    mean = "Reconstruction" if measured else "Image"
    for name, title in (("naive", "Naive inversion"), ("mean", mean)):
        if f"reconstruction/{name}" in stored and title not in pictures:
            pictures[title] = read(store.array(f"reconstruction/{name}"), index)[0]
    truth = known.images[0] if known is not None and measured else None
    heatmaps, peak, shape = {}, None, (0, 0)
    for name in (name for name in order if name in table.with_map()):
        heatmap = read(store.array(f"{name}/heatmap"), index)[0]
        shape = heatmap.shape
        if name == table.main:
            # Padded pixels are not of the input.
            fits = None if images is None else images.fits
            inside = True if fits is None else fits[index[0]].inside
            peak = pixels.peak_of(np.where(inside, heatmap, np.nan))
        longest = pixels.LONGEST if name == table.main else SMALL
        heatmaps[name] = pixels.shrunk(heatmap, longest)
    masks = None if known is None else known.masks
    return Shown(
        shape=next((p.shape[:2] for p in pictures.values()), shape),
        truth=truth,
        images=pictures,
        extras=_extras(store, table, index, pictures, truth),
        heatmaps=heatmaps,
        peak=peak,
        outline="" if masks is None else pixels.outline_path(masks[0]),
    )


def _extras(store, table, index, pictures, truth):
    """Return what the main detector has kept that are other images of that shape."""
    extras = {}
    there = [*pictures.values(), *([] if truth is None else [truth])]
    for name, shape in table.detectors[table.main]["extras"].items():
        if not any(tuple(shape) == x.shape for x in there):
            continue
        image = read(store.array(f"{table.main}/{name}"), index)[0]
        if not any(np.array_equal(image, x) for x in there):
            extras[name_of(name).capitalize()] = image
    return extras
