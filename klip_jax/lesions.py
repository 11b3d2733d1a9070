"""Where inside images, counted by lesion and by pixel: pure numpy.

    FROC       sensitivity to lesions at a rate of false marks an image
    SegF1      F1 of the pixels above a threshold that healthy maps set
    AUPIMO     recall of each image, over shared false alarms in logarithmic scale
    strata     of lesions by size and by contrast

`localization` is one AUROC an image; these say what a reader who is shown marks gets.
Bigger is more out-of-distribution. A lesion is a connected component of a mask, corners
included (8 neighbours).

References: Bunch et al. 1978 and Chakraborty 1989 (FROC); Heckler-Kram et al. 2025
(MVTec AD 2: SegF1 at mean + 3 standard deviations); Bertoldo et al. 2024 (AUPIMO).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int, Num
from scipy import ndimage

CORNERS = np.ones((3, 3), int)


class Marks(NamedTuple):
    """The marks of one image, highest first.

    Attributes:
      scores: of the map there.
      rows, columns: where.
    """

    scores: Float[np.ndarray, " m"]
    rows: Int[np.ndarray, " m"]
    columns: Int[np.ndarray, " m"]


def components(mask: Bool[ArrayLike, "h w"]) -> Int[np.ndarray, "h w"]:
    """Return the number of the lesion of each pixel, from 1; 0 is none."""
    labels, _ = ndimage.label(np.asarray(mask, bool), CORNERS)
    return labels


def marks(
    heatmap: Num[ArrayLike, "h w"],
    region: Bool[ArrayLike, "h w"],
    radius: int = 3,
) -> Marks:
    """Return the local maxima of a map, what a reader would be shown.

    A pixel is a mark if none within `radius` of it, in rows and in columns, is higher;
    of equal ones the first in reading order. What is outside the region has no say.

    Args:
      heatmap: finite inside the region.
      region: where the question is asked.
      radius: pixels, >= 0.

    Raises:
      ValueError: if `radius` is negative, or the map not finite there.
    """
    if radius < 0:
        raise ValueError(f"radius={radius}: must be >= 0 pixels")
    heatmap, region = np.asarray(heatmap, np.float64), np.asarray(region, bool)
    if not np.isfinite(heatmap[region]).all():
        raise ValueError("the map is not finite everywhere in the region")
    # Ranks have no ties: the first of equal pixels is the highest.
    order = np.argsort(-np.where(region, heatmap, -np.inf), axis=None, kind="stable")
    ranks = np.empty(heatmap.size)
    ranks[order] = -np.arange(heatmap.size)
    rank = ranks.reshape(heatmap.shape)
    highest = ndimage.maximum_filter(rank, 2 * radius + 1, mode="constant", cval=-1e9)
    rows, columns = np.nonzero((rank == highest) & region)
    first = np.argsort(-rank[rows, columns])
    rows, columns = rows[first], columns[first]
    return Marks(heatmap[rows, columns], rows, columns)


def sensitivity(
    heatmaps: Num[ArrayLike, "n h w"],
    masks: Bool[ArrayLike, "n h w"],
    regions: Bool[ArrayLike, "n h w"],
    *,
    rate: float = 1.0,
    radius: int = 3,
) -> float:
    """Return the share of lesions marked at a rate of false marks an image (FROC).

    One threshold for all images, the lowest at which there are at most `rate` false
    marks an image on average, over all images. A mark inside a lesion, or within
    `radius` of it, finds it, once; any other mark is false. NaN without a lesion.

    Args:
      heatmaps: of images with and without lesions.
      masks: where lesions are; only what is inside the region counts.
      regions: where the question is asked.
      rate: false marks an image, >= 0.
      radius: of `marks` and of the reach of a mark, pixels.
    """
    heatmaps, masks = np.asarray(heatmaps), np.asarray(masks, bool)
    regions = np.asarray(regions, bool)
    hits: list[float] = []
    misses: list[float] = []
    for heatmap, mask, region in zip(heatmaps, masks, regions, strict=True):
        labels = components(mask & region)
        best = np.full(labels.max() + 1, -np.inf)
        for score, row, column in zip(*marks(heatmap, region, radius), strict=True):
            near = labels[
                max(row - radius, 0) : row + radius + 1,
                max(column - radius, 0) : column + radius + 1,
            ]
            hit = np.unique(near[near > 0])
            best[hit] = np.maximum(best[hit], score)
            if not len(hit):
                misses.append(score)
        hits.extend(best[1:])
    if not hits:
        return float("nan")
    allowed = int(np.floor(rate * len(heatmaps) + 1e-9))
    false = np.sort(misses)[::-1]
    # The first false mark too many: what ties with it is not let in either.
    bar = false[allowed] if allowed < len(false) else -np.inf
    return float(np.mean(np.asarray(hits) > bar))


def own_threshold(
    healthy: Num[ArrayLike, "n h w"], regions: Bool[ArrayLike, "n h w"]
) -> float:
    """Return mean + 3 standard deviations of healthy pixels: a detector's own bar."""
    pixels = np.asarray(healthy, np.float64)[np.asarray(regions, bool)]
    return float(pixels.mean() + 3 * pixels.std())


def seg_f1(
    heatmaps: Num[ArrayLike, "n h w"],
    masks: Bool[ArrayLike, "n h w"],
    regions: Bool[ArrayLike, "n h w"],
    threshold: float,
) -> float:
    """Return 2 TP / (2 TP + FP + FN) of all pixels in the regions above a threshold.

    The threshold is the detector's own (`own_threshold`), not the best on the test set.
    NaN where nothing is anomalous and nothing is flagged.
    """
    inside = np.asarray(regions, bool)
    flagged = (np.asarray(heatmaps) > threshold)[inside]
    odd = np.asarray(masks, bool)[inside]
    total = flagged.sum() + odd.sum()
    return float(2 * np.sum(flagged & odd) / total) if total else float("nan")


def aupimo(
    heatmaps: Num[ArrayLike, "n h w"],
    masks: Bool[ArrayLike, "n h w"],
    healthy: Num[ArrayLike, "m h w"],
    *,
    low: float = 1e-5,
    high: float = 1e-4,
    regions: Bool[ArrayLike, "n h w"] | None = None,
    healthy_regions: Bool[ArrayLike, "m h w"] | None = None,
) -> Float[np.ndarray, " n"]:
    """Return, of each image, the mean recall over rates of false alarms in log scale.

        AUPIMO_i = 1 / ln(high / low) int_low^high recall_i(F) d ln F

    F is the mean over healthy images of the share of their pixels above a threshold.
    The integral is exact, over the steps that thresholds make, where the published code
    interpolates between thresholds. An image without anomaly gives NaN.

    Args:
      heatmaps: of the images that are judged.
      masks: where the anomaly is.
      healthy: maps of in-distribution images, which set F.
      low, high: rates, 0 < low < high <= 1. The paper's are for images of 10^5 pixels
        and more; small ones want higher.
      regions, healthy_regions: which pixels count; None: all.

    Raises:
      ValueError: if the healthy pixels are too few to tell rates as low as `low`.

    Reference: Bertoldo et al. 2024, eq. 3-5.
    """
    healthy = np.asarray(healthy, np.float64)
    inside = np.ones(healthy.shape, bool)
    if healthy_regions is not None:
        inside = np.asarray(healthy_regions, bool)
    sizes = inside.sum((1, 2))
    weights = np.broadcast_to(
        1 / (np.maximum(sizes, 1) * np.sum(sizes > 0))[:, None, None], healthy.shape
    )[inside]
    usual = healthy[inside]
    if not 0 < low < high <= 1 or not len(usual) or weights.min() > low:
        raise ValueError(
            f"low={low}, high={high}: need 0 < low < high <= 1, and healthy pixels "
            f"that tell rates of {low}; give more of them, or a higher low"
        )
    bars, start = np.unique(-usual, return_inverse=True)
    bars = -bars  # falling
    rates = np.cumsum(np.bincount(start, weights))
    # At a rate of [rates[k - 1], rates[k]) all above bars[k] is flagged.
    edges = np.clip(np.concatenate([[0], rates[:-1], [rates[-1]]]), low, high)
    edges[-1] = high
    shares = np.diff(np.log(edges)) / np.log(high / low)
    steps = shares > 0
    maps, asked = np.asarray(heatmaps), np.asarray(masks, bool)
    if regions is not None:
        asked = asked & np.asarray(regions, bool)
    values = np.full(len(maps), np.nan)
    for i, heatmap in enumerate(maps):
        odd = heatmap[asked[i]]
        if len(odd):
            recall = np.mean(odd[:, None] > bars[steps], 0)
            values[i] = recall @ shares[steps]
    return values


def sizes(masks: Bool[ArrayLike, "n h w"]) -> Int[np.ndarray, " n"]:
    """Return the number of anomalous pixels of each image."""
    return np.asarray(masks, bool).sum((1, 2))


def contrasts(
    images: Num[ArrayLike, "n h w"],
    masks: Bool[ArrayLike, "n h w"],
    width: int = 2,
) -> Float[np.ndarray, " n"]:
    """Return |mean inside - mean of the ring around it| of each image; NaN if empty.

    Args:
      images: grey.
      masks: where the anomaly is.
      width: of the ring, pixels.
    """
    values = []
    for image, mask in zip(np.asarray(images), np.asarray(masks, bool), strict=True):
        ring = ndimage.binary_dilation(mask, CORNERS, width) & ~mask
        both = mask.any() and ring.any()
        values.append(abs(image[mask].mean() - image[ring].mean()) if both else np.nan)
    return np.asarray(values, np.float64)


def strata(
    values: Num[ArrayLike, " n"], edges: Num[ArrayLike, " k"]
) -> Int[np.ndarray, " n"]:
    """Return which of the k + 1 intervals each value is in; -1 where it is NaN.

    Stratum j holds edges[j - 1] <= value < edges[j]. Take the edges from quantiles of
    images that are not tested, so that they do not depend on what is compared.
    """
    values = np.asarray(values, np.float64)
    which = np.searchsorted(np.asarray(edges), values, side="right")
    return np.where(np.isnan(values), -1, which)
