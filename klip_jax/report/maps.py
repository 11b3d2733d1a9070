"""Read the maps of a run once, a batch of images at a time, and measure each image.

What is kept of an image is a few numbers, so memory does not grow with the images; only
of the main detector's maps some pixels are kept, for the pooled metrics.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from klip_jax import localization, metrics
from klip_jax.data.base import Images, ImageSet
from klip_jax.report.table import Table
from klip_jax.run.store import Store, StoredArray

TEMPLATE = "position_template"
POOLED_PIXELS = 2**23

_BATCH_PIXELS = 2**21


@dataclasses.dataclass(frozen=True)
class Normal:
    """What the main detector's maps look like where nothing is odd.

    Attributes:
      usable: images whose main score and map are finite.
      total: sum of the main maps of the usable in-distribution images; None without.
      count: how many these are.
    """

    usable: Bool[np.ndarray, " n"]
    total: Float[np.ndarray, "h w"] | None
    count: int


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the maps say of each image.

    Attributes:
      masked: usable images with a mask of what is odd in them.
      regions: where localization is asked: "eligible", "body" or "image", the narrowest
        that is known first.
      aurocs: block AUROC of each image by region, then by detector; NaN where it does
        not exist.
      psnr: of the reconstructions, dB; NaN where the truth is not known.
      pooled: (heatmaps, masks, regions, is_id) of images for the pixel metrics.
      pooled_share: how many of the images that could be pooled are.
    """

    masked: Bool[np.ndarray, " n"]
    regions: tuple[str, ...]
    aurocs: dict[str, dict[str, Float[np.ndarray, " n"]]]
    psnr: Float[np.ndarray, " n"]
    pooled: tuple[list, list, list, list]
    pooled_share: float


def read_normal(store: Store, table: Table) -> Normal:
    """Read the main maps once, for what is finite and for the position template."""
    usable = np.isfinite(table.scores[table.main])
    if table.main not in table.with_map() or not usable.size:
        return Normal(usable, None, 0)
    own, total = table.sides["id"], None
    heatmaps = store.array(f"{table.main}/heatmap")
    for rows in batches(store, table, heatmaps.shape[1:3]):
        maps = read(heatmaps, table.index[rows])
        usable[rows] &= np.isfinite(maps).all((1, 2))
        some = maps[own[rows] & usable[rows]].sum(0, dtype=np.float64)
        total = some if total is None else total + some
    count = int((own & usable).sum())
    # The name may be taken by a detector of this run.
    has_template = count and TEMPLATE not in table.detectors
    return Normal(usable, total if has_template else None, count)


def measure(
    store: Store, table: Table, normal: Normal, images: ImageSet, block: int
) -> Measured:
    """Read all maps beside the data, once.

    Args:
      store, table, normal: of the run.
      images: the data.
      block: side of the blocks of the localization AUROC, pixels.

    Raises:
      ValueError: if `block` does not divide an image, or an array is broken.
    """
    count, own = len(table.index), table.sides["id"]
    regions = _regions_known(images)
    maps = {name: store.array(f"{name}/heatmap") for name in table.with_map()}
    names = [*([] if normal.total is None else [TEMPLATE]), *maps]
    aurocs = {r: {n: np.full(count, np.nan) for n in names} for r in regions}
    masked, psnr = np.zeros(count, bool), np.full(count, np.nan)
    pooled: tuple[list, list, list, list] = [], [], [], []
    chosen, share = _choose(table, normal, images)
    mean = "reconstruction/mean"
    means = store.array(mean) if mean in store.array_names() else None

    for rows in batches(store, table, images.shape[:2]):
        seen, index = images.read(table.index[rows]), table.index[rows]
        if means is not None:
            psnr[rows] = _psnr(seen.images, read(means, index))
        if seen.masks is None:
            continue
        masked[rows] = normal.usable[rows] & seen.masks.any((1, 2))
        odd = np.flatnonzero(masked[rows])
        some = np.flatnonzero(chosen[rows])
        areas = {name: region(seen, name) for name in regions}
        positive = localization.block_any(seen.masks[odd], block)
        kept = {
            r: localization.block_any(area[odd], block) for r, area in areas.items()
        }
        for name, heatmaps in _each_map(
            maps, index, odd, own[rows], table.main, normal
        ):
            sums = localization.block_sums(heatmaps, block)
            for where, blocks in kept.items():
                aurocs[where][name][rows[odd]] = metrics.aurocs(sums, positive, blocks)
        if some.size:
            pooled[0].extend(read(maps[table.main], index[some]))
            pooled[1].extend(seen.masks[some])
            pooled[2].extend(areas[regions[0]][some])
            pooled[3].extend(own[rows][some].tolist())
    return Measured(masked, regions, aurocs, psnr, pooled, share)


def region(images: Images, name: str) -> Bool[np.ndarray, "n h w"]:
    """Return where localization is asked: the region `name`, and always the mask.

    An anomaly that reaches beyond eligible tissue is looked for where it is.
    """
    masks = images.masks
    return np.ones_like(masks) if name == "image" else getattr(images, name) | masks


def batches(store: Store, table: Table, sides: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield the rows of the table in batches of a bounded number of pixels."""
    size = max(1, _BATCH_PIXELS // int(np.prod(sides)))
    # Whole chunks, where they fit, so that none is read twice.
    size -= size % store.chunk_size if size > store.chunk_size else 0
    for start in range(0, len(table.index), size):
        yield np.arange(start, min(start + size, len(table.index)))


def read(array: StoredArray, index: np.ndarray) -> np.ndarray:
    """Read the entries `index` (ascending) of a stored array, those between at once."""
    if not len(index):
        return np.zeros((0, *array.shape[1:]), array.dtype)
    return array[int(index[0]) : int(index[-1]) + 1][index - index[0]]


def _each_map(maps, index, odd, own, main, normal):
    """Yield the name and the maps [n, H, W] of the images `odd`, by each detector."""
    for name, array in maps.items() if odd.size else ():
        heatmaps = read(array, index[odd])
        yield name, heatmaps
        if name == main and normal.total is not None:
            all_of_them = normal.total, normal.count
            yield (
                TEMPLATE,
                localization.position_template(heatmaps, own[odd], *all_of_them),
            )


def _regions_known(images: ImageSet) -> tuple[str, ...]:
    known = tuple(name for name in ("eligible", "body") if name in images.regions)
    return known or ("image",)


def _choose(table, normal, images: ImageSet) -> tuple[np.ndarray, float]:
    """Choose the images whose pixels are pooled, all if they are not too many."""
    chosen = np.zeros(len(table.index), bool)
    if "masks" not in images.regions or table.main not in table.with_map():
        return chosen, 1.0
    most = max(1, POOLED_PIXELS // (images.shape[0] * images.shape[1]))
    usable = np.flatnonzero(normal.usable)
    if len(usable) <= most:
        return normal.usable, 1.0
    chosen[np.random.default_rng(0).choice(usable, most, replace=False)] = True
    return chosen, most / len(usable)


def _psnr(truth, image) -> np.ndarray:
    error = np.mean((truth.astype(np.float64) - image) ** 2, (1, 2, 3))
    # A perfect image is infinitely good; it has no place in a mean.
    return -10 * np.log10(np.where(error > 0, error, np.nan))
