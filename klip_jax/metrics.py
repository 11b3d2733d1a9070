"""How well scores and maps find anomalies, with bootstrap intervals: pure numpy.

Two questions, two names. `localization`: inside one anomalous image, do the blocks with
the anomaly rank above the others; the mean over images of `block_auroc`. `detection`:
between images, do the anomalous ones rank above the others. Bigger is more
out-of-distribution (OOD) everywhere.

The bootstrap redraws images, or patients where known. A statistic is a function of how
often each image was drawn, weights [R, N] -> values [R]; all statistics see the same
resamples, a few at a time, so that memory grows with N and never with N x N.

References: Fawcett 2006 (ROC); Efron and Tibshirani 1993, ch. 13 (percentile interval);
Yang et al. 2022 (OpenOOD: AUPR, FPR95).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Num
from scipy import stats
from sklearn.metrics import auc, precision_recall_curve, roc_curve

Statistic: TypeAlias = Callable[[Float[np.ndarray, "r n"]], Float[np.ndarray, " r"]]
"""How often each of N images was drawn, R times -> R values."""
Interval: TypeAlias = dict[str, float]
"""{"value", "low", "high"}."""

RESAMPLES = 1000

_FEW = 10_000
_AT_ONCE = 2**18  # weights at a time: more would not fit into a core's cache


def auroc(scores: Num[ArrayLike, " n"], positive: Bool[ArrayLike, " n"]) -> float:
    """Return P(score of a positive > of a negative) + P(equal) / 2; NaN if one class.

    Args:
      scores: finite values.
      positive: labels.
    """
    scores, positive = np.asarray(scores)[None], np.asarray(positive)[None]
    return float(aurocs(scores, positive, np.ones_like(positive))[0])


def block_auroc(
    heatmap: Num[ArrayLike, "h w"],
    mask: Bool[ArrayLike, "h w"],
    region: Bool[ArrayLike, "h w"],
    block: int,
) -> float:
    """Return the AUROC of the blocks of one image; see `block_aurocs`."""
    one, odd, where = (np.asarray(image)[None] for image in (heatmap, mask, region))
    return float(block_aurocs(one, odd, where, block)[0])


def block_aurocs(
    heatmaps: Num[ArrayLike, "n h w"],
    masks: Bool[ArrayLike, "n h w"],
    regions: Bool[ArrayLike, "n h w"],
    block: int,
) -> Float[np.ndarray, " n"]:
    """Return the AUROC of the blocks of each image, NaN if they are of one class.

    A block's score is the sum of its pixels; it is positive if any of its pixels is in
    the mask, and counts if any is in the region. A map that is not finite gives NaN.

    Args:
      heatmaps: bigger is more out-of-distribution.
      masks: where the anomaly is.
      regions: where the question is asked.
      block: side of a block, pixels; divides H and W.

    Raises:
      ValueError: if `block` does not divide H and W.
    """
    positive, kept = block_any(masks, block), block_any(regions, block)
    return aurocs(block_sums(heatmaps, block), positive, kept)


def block_sums(images: Num[ArrayLike, "n h w"], block: int) -> Float[np.ndarray, "n b"]:
    """Return the sum of the pixels of each block of each image."""
    return _blocks(images, block).sum(-1, dtype=np.float64)


def block_any(images: Bool[ArrayLike, "n h w"], block: int) -> Bool[np.ndarray, "n b"]:
    """Return whether any pixel of each block of each image is true."""
    return _blocks(images, block).any(-1)


def aurocs(
    scores: Num[ArrayLike, "n b"],
    positive: Bool[ArrayLike, "n b"],
    kept: Bool[ArrayLike, "n b"],
) -> Float[np.ndarray, " n"]:
    """Return the AUROC of each row, of what is kept; NaN if that is of one class.

    Args:
      scores: finite values; a row with others gives NaN.
      positive: labels.
      kept: which of them count.
    """
    scores, kept = np.asarray(scores, np.float64), np.asarray(kept)
    positive = np.asarray(positive) & kept
    n, m = positive.sum(-1), (kept & ~positive).sum(-1)
    # What is not kept ranks last, and so does not move the ranks of the others.
    ranks = stats.rankdata(np.where(kept, scores, np.inf), axis=-1)
    won = np.sum(np.where(positive, ranks, 0), -1) - n * (n + 1) / 2
    exists = (n > 0) & (m > 0) & np.isfinite(np.where(kept, scores, 0)).all(-1)
    return won / np.where(exists, n * m, np.nan)


def localization(heatmaps, masks, regions, block: int) -> float:
    """Return the mean over images of `block_auroc`, images of one class left out."""
    images = zip(heatmaps, masks, regions, strict=True)
    values = np.array([block_auroc(*image, block) for image in images])
    return float(mean_of(values)(np.ones((1, len(values))))[0])


def position_template(
    heatmaps: Num[ArrayLike, "n h w"],
    is_id: Bool[ArrayLike, " n"],
    total: Float[np.ndarray, "h w"] | None = None,
    count: int | None = None,
) -> Float[np.ndarray, "n h w"]:
    """Return, for each image, the mean map of the OTHER in-distribution images.

    The control that has not seen the image: what a map gets for anatomy alone.

    Args:
      heatmaps: of all images, or of some of them.
      is_id: which of these are in-distribution.
      total, count: sum and number of ALL in-distribution maps; None: of those given.

    Returns:
      Mean maps; NaN where there is no other in-distribution image.
    """
    maps, own = np.asarray(heatmaps, np.float64), np.asarray(is_id)
    total = maps[own].sum(0) if total is None else total
    others = (own.sum() if count is None else count) - own
    rest = total - np.where(own[:, None, None], maps, 0)
    # Not 0 / 0: an image without others gets NaN without a warning.
    return rest / np.where(others, others, np.nan)[:, None, None]


def mean_of(values: Num[ArrayLike, " n"]) -> Statistic:
    """Return the statistic "mean of `values`", NaN values left out."""
    values = np.asarray(values, np.float64)
    there = np.isfinite(values)
    filled = np.where(there, values, 0)

    def statistic(weights):
        count = weights @ there
        return weights @ filled / np.where(count > 0, count, np.nan)

    return statistic


def auroc_of(scores: Num[ArrayLike, " n"], is_ood: Bool[ArrayLike, " n"]) -> Statistic:
    """Return the statistic "AUROC of `scores` against `is_ood`".

    By ranks: an OOD image wins against the ID images below it, and half of its equals.
    """
    scores, is_ood = np.asarray(scores, np.float64), np.asarray(is_ood)
    # In the order of the scores, memory is read from left to right.
    ood, own = (np.flatnonzero(side) for side in (is_ood, ~is_ood))
    ood, own = (side[np.argsort(scores[side])] for side in (ood, own))
    below, upto = (
        np.searchsorted(scores[own], scores[ood], side) for side in ("left", "right")
    )
    ties = bool((below < upto).any())

    def statistic(weights):
        count = np.zeros((len(weights), len(own) + 1))
        np.cumsum(weights[:, own], 1, out=count[:, 1:])
        drawn = weights[:, ood]
        beaten = count[:, below]
        if ties:
            beaten = (beaten + count[:, upto]) / 2
        won = np.sum(beaten * drawn, 1)
        pairs = drawn.sum(1) * count[:, -1]
        return won / np.where(pairs > 0, pairs, np.nan)

    return statistic


def resampled(
    statistics: Mapping[Any, Statistic],
    clusters: Sequence | np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[Any, Float[np.ndarray, " r"]]:
    """Return each statistic of the images, then of `resamples` draws of them [1 + R].

    All statistics see the same resamples, so that differences of values are paired.

    Args:
      statistics: weights [R, N] -> values [R], by name.
      clusters: N labels (patients, or image ids); equal labels are drawn together.
      resamples: how many.
      seed: the same seed and clusters give the same resamples.
    """
    batches = _weights(clusters, resamples, seed)
    values = [{name: f(w) for name, f in statistics.items()} for w in batches]
    return {name: np.concatenate([v[name] for v in values]) for name in statistics}


def interval(values: Float[np.ndarray, " r"]) -> Interval:
    """Return the first of `values` and the 95 % percentile interval of the others.

    Values that do not exist (one class only was drawn) do not count. The interval knows
    nothing of values that no image showed: a perfect score gives [1, 1].
    """
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return {"value": float(values[0]), "low": float(low), "high": float(high)}


def bootstrap(statistic: Statistic, clusters, **settings: int) -> Interval:
    """Return a statistic and its interval; see `resampled` and `interval`."""
    return interval(resampled({"": statistic}, clusters, **settings)[""])


def paired_difference(
    a: Statistic, b: Statistic, clusters, **settings: int
) -> Interval:
    """Bootstrap a - b on the same resamples."""
    return bootstrap(lambda weights: a(weights) - b(weights), clusters, **settings)


def aupr(scores: Num[ArrayLike, " n"], is_ood: Bool[ArrayLike, " n"]) -> float:
    """Return the area under precision-recall, OOD positive, by trapezoid (OpenOOD)."""
    precision, recall, _ = precision_recall_curve(is_ood, scores)
    return float(auc(recall, precision))


def fpr95_ood_pos(scores: Num[ArrayLike, " n"], is_ood: Bool[ArrayLike, " n"]) -> float:
    """Return the share of ID images flagged where 95 % of OOD is (OpenOOD v1.5)."""
    fpr, tpr, _ = roc_curve(is_ood, scores, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])


def fpr95_id_pos(scores: Num[ArrayLike, " n"], is_ood: Bool[ArrayLike, " n"]) -> float:
    """Return the share of OOD images accepted where 95 % of ID is (OpenOOD v1.0)."""
    return fpr95_ood_pos(-np.asarray(scores), ~np.asarray(is_ood, bool))


def psnr(truth: np.ndarray, image: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB for a data range of 1."""
    error = np.mean((np.asarray(truth, np.float64) - image) ** 2)
    return float(-10 * np.log10(error)) if error else float("inf")


def _weights(clusters, resamples, seed) -> Iterator[np.ndarray]:
    """Yield ones [1, N], then how often each image was drawn [few, N], a few a time."""
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    n = int(index.max()) + 1
    yield np.ones((1, len(index)))
    rng = np.random.default_rng(seed)
    few = max(1, _AT_ONCE // len(index))
    for start in range(0, resamples, few):
        size = min(few, resamples - start)
        yield _drawn(rng, n, size)[:, index].astype(np.float64)


def _drawn(rng, n, size) -> np.ndarray:
    """Draw n of n with replacement, `size` times; return how often each was [size, n].

    Both ways follow the same law. The second is 15 times faster; few keep the first, so
    that the intervals of what was published before stay to the last digit.
    """
    if n <= _FEW:
        return rng.multinomial(n, np.full(n, 1 / n), size=size)
    draws = (rng.integers(n, size=n, dtype=np.int32) for _ in range(size))
    return np.stack([np.bincount(drawn, minlength=n) for drawn in draws])


def _blocks(images, block):
    """Return [N, H/b * W/b, b * b]: the pixels of each block of images [N, H, W]."""
    images = np.asarray(images)
    n, height, width = images.shape
    if block < 1 or height % block or width % block:
        raise ValueError(f"block={block} does not divide a {height}x{width} image")
    rows, columns = height // block, width // block
    split = images.reshape(n, rows, block, columns, block)
    return split.swapaxes(2, 3).reshape(n, rows * columns, block * block)
