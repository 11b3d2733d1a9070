"""How well scores and maps find anomalies, with bootstrap intervals: pure numpy.

Two questions, two names. `localization`: inside one anomalous image, do the blocks with
the anomaly rank above the others; the mean over images of `block_auroc`. `detection`:
between images, do the anomalous ones rank above the others. Bigger is more
out-of-distribution (OOD) everywhere.

The bootstrap redraws images, or patients where known. A statistic is a function of how
often each image was drawn, weights [R, N] -> values [R], so that a resample costs a
product of matrices and two methods are compared on the same resamples.

References: Fawcett 2006 (ROC); Efron and Tibshirani 1993, ch. 13 (percentile interval);
Bergmann et al. 2021 (per-region overlap); Yang et al. 2022 (OpenOOD: AUPR, FPR95).
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage, stats
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_curve,
)

Statistic = Callable[[np.ndarray], np.ndarray]

RESAMPLES = 1000


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return P(score of a positive > of a negative) + P(equal) / 2; NaN if one class.

    Args:
      scores: finite values [N].
      positive: labels [N] bool.
    """
    positive = np.asarray(positive, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    ranks = stats.rankdata(np.asarray(scores, np.float64))
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def block_auroc(
    heatmap: np.ndarray, mask: np.ndarray, region: np.ndarray, block: int
) -> float:
    """Return the AUROC of the blocks of one image, NaN if they are of one class.

    A block's score is the sum of its pixels; it is positive if any of its pixels is in
    the mask, and counts if any is in the region.

    Args:
      heatmap: [H, W].
      mask: where the anomaly is [H, W] bool.
      region: where the question is asked [H, W] bool.
      block: side of a block, pixels; divides H and W.

    Raises:
      ValueError: if `block` does not divide H and W.
    """
    kept = _blocks(region, block).any(-1)
    scores = _blocks(heatmap, block).sum(-1, dtype=np.float64)
    return auroc(scores[kept], _blocks(mask, block).any(-1)[kept])


def localization(heatmaps, masks, regions, block: int) -> float:
    """Return the mean over images of `block_auroc`, images of one class left out."""
    images = zip(heatmaps, masks, regions, strict=True)
    values = np.array([block_auroc(*image, block) for image in images])
    return float(mean_of(values)(np.ones((1, len(values))))[0])


def position_template(heatmaps: np.ndarray, is_id: np.ndarray) -> np.ndarray:
    """Return, for each image, the mean map of the OTHER in-distribution images.

    The control that has not seen the image: what a map gets for anatomy alone.

    Args:
      heatmaps: [N, H, W].
      is_id: which images are in-distribution [N] bool.

    Returns:
      [N, H, W]; NaN where there is no other in-distribution image.
    """
    maps, own = np.asarray(heatmaps, np.float64), np.asarray(is_id, bool)
    others = own.sum() - own
    total = maps[own].sum(0) - np.where(own[:, None, None], maps, 0)
    # Not 0 / 0: an image without others gets NaN without a warning.
    return total / np.where(others, others, np.nan)[:, None, None]


def mean_of(values: np.ndarray) -> Statistic:
    """Return the statistic "mean of `values` [N]", NaN values left out."""
    values = np.asarray(values, np.float64)
    there = np.isfinite(values)
    filled = np.where(there, values, 0)

    def statistic(weights):
        count = weights @ there
        return weights @ filled / np.where(count > 0, count, np.nan)

    return statistic


def auroc_of(scores: np.ndarray, is_ood: np.ndarray) -> Statistic:
    """Return the statistic "AUROC of `scores` [N] against `is_ood` [N]"."""
    scores, is_ood = np.asarray(scores, np.float64), np.asarray(is_ood, bool)
    wins = np.sign(scores[is_ood][:, None] - scores[~is_ood]) / 2 + 0.5

    def statistic(weights):
        ood, others = weights[:, is_ood], weights[:, ~is_ood]
        pairs = ood.sum(1) * others.sum(1)
        won = np.sum((ood @ wins) * others, 1)
        return won / np.where(pairs > 0, pairs, np.nan)

    return statistic


def bootstrap(
    statistic: Statistic,
    clusters: Sequence,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, float]:
    """Return {"value", "low", "high"}: a statistic and its 95 % percentile interval.

    Resamples in which the statistic does not exist (one class only) do not count. The
    interval knows nothing of values that no image showed: a perfect score gives [1, 1].

    Args:
      statistic: weights [R, N] -> values [R].
      clusters: N labels (patients, or image ids); equal labels are drawn together.
      resamples: how many.
      seed: the same seed and clusters give the same resamples.
    """
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    n = int(index.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    values = statistic(drawn[:, index].astype(np.float64))
    low, high = np.nanquantile(values, [0.025, 0.975])
    value = statistic(np.ones((1, len(index))))[0]
    return {"value": float(value), "low": float(low), "high": float(high)}


def paired_difference(a: Statistic, b: Statistic, clusters: Sequence, **settings):
    """Bootstrap a - b on the same resamples: {"value", "low", "high"}."""
    return bootstrap(lambda weights: a(weights) - b(weights), clusters, **settings)


def aupr(scores: np.ndarray, is_ood: np.ndarray) -> float:
    """Return the area under precision-recall, OOD positive, by trapezoid (OpenOOD)."""
    precision, recall, _ = precision_recall_curve(is_ood, scores)
    return float(auc(recall, precision))


def fpr95_ood_pos(scores: np.ndarray, is_ood: np.ndarray) -> float:
    """Return the share of ID images flagged where 95 % of OOD is (OpenOOD v1.5)."""
    fpr, tpr, _ = roc_curve(is_ood, scores, drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])


def fpr95_id_pos(scores: np.ndarray, is_ood: np.ndarray) -> float:
    """Return the share of OOD images accepted where 95 % of ID is (OpenOOD v1.0)."""
    return fpr95_ood_pos(-np.asarray(scores), ~np.asarray(is_ood, bool))


def aupro(heatmaps, masks, regions, limit: float = 0.3) -> float:
    """Return the area under per-region overlap against FPR up to `limit`, over `limit`.

    Overlap is the mean, over the 8-connected components of all masks, of the share of
    the component above the threshold; FPR is the share of normal pixels of the regions
    above it, those of defect-free images included.

    Args:
      heatmaps, masks, regions: sequences of N arrays [H, W].
      limit: largest false positive rate, in (0, 1].
    """
    weights = []
    for mask, region in zip(masks, regions, strict=True):
        labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel()).astype(float)
        sizes[0] = 1
        weights.append((1 / sizes[labels])[region | mask])
    scores, labels = pool(heatmaps, masks, regions)
    # Overlap is a true positive rate in which every component weighs the same.
    fpr, overlap, _ = roc_curve(
        labels, scores, sample_weight=np.concatenate(weights), drop_intermediate=False
    )
    inside = fpr <= limit
    x = [*fpr[inside], limit]
    y = [*overlap[inside], np.interp(limit, fpr, overlap)]
    return float(auc(x, y) / limit)


def pool(heatmaps, masks, regions) -> tuple[np.ndarray, np.ndarray]:
    """Return (scores, labels) of the pixels of all images, in region or mask."""
    images = list(zip(heatmaps, masks, regions, strict=True))
    scores = [heatmap[region | mask] for heatmap, mask, region in images]
    labels = [mask[region | mask] for _, mask, region in images]
    return np.concatenate(scores), np.concatenate(labels)


def dice(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return 2 |P and L| / (|P| + |L|) of two bool arrays; NaN if both are empty."""
    total = int(predicted.sum()) + int(labels.sum())
    return 2 * int((predicted & labels).sum()) / total if total else float("nan")


def best_dice(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the largest Dice over one threshold on `scores`: an oracle's number."""
    order = np.argsort(-scores, kind="stable")
    scores, labels = scores[order], labels[order]
    last_of_ties = np.append(np.diff(scores) != 0, True)
    hits, flagged = np.cumsum(labels), np.arange(1, len(labels) + 1)
    return float(np.max((2 * hits / (flagged + hits[-1]))[last_of_ties]))


def pixel_metrics(heatmaps, masks, regions, is_id: np.ndarray) -> dict[str, float]:
    """Return pooled pixel metrics over the regions of all images, threshold by pixel.

    Args:
      heatmaps, masks, regions: sequences of N arrays [H, W].
      is_id: which images are in-distribution [N]; if any is, `dice_fpr05_id` is the
        Dice at the threshold that 5 % of their pixels exceed.

    Raises:
      ValueError: if the pixels are of one class.
    """
    scores, labels = pool(heatmaps, masks, regions)
    if labels.all() or not labels.any():
        raise ValueError("pixels of one class only; need masks and normal pixels")
    found = {
        "auroc": auroc(scores, labels),
        "ap": float(average_precision_score(labels, scores)),
        "prevalence": float(labels.mean()),
        "aupro30": aupro(heatmaps, masks, regions, 0.3),
        "aupro05": aupro(heatmaps, masks, regions, 0.05),
        "dice_best": best_dice(scores, labels),
    }
    normal = [h[r] for h, r, own in zip(heatmaps, regions, is_id, strict=True) if own]
    if normal:
        threshold = np.quantile(np.concatenate(normal), 0.95, method="higher")
        found["dice_fpr05_id"] = dice(scores > threshold, labels)
    return found


def psnr(truth: np.ndarray, image: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB for a data range of 1."""
    error = np.mean((np.asarray(truth, np.float64) - image) ** 2)
    return float(-10 * np.log10(error)) if error else float("inf")


def _blocks(image, block):
    """Return [H/b, W/b, b * b]: the pixels of each block."""
    height, width = image.shape
    if block < 1 or height % block or width % block:
        raise ValueError(f"block={block} does not divide a {height}x{width} image")
    split = image.reshape(height // block, block, width // block, block)
    return split.swapaxes(1, 2).reshape(height // block, width // block, -1)
