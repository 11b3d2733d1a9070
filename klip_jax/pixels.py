"""How well maps find anomalous pixels, the pixels of all images in one pot: pure numpy.

Pooled numbers compare pixels of different images, so they ask for localization and
detection at once, with a threshold for all images; `metrics` asks the two apart.

References: Bergmann et al. 2021 (per-region overlap).
"""

import numpy as np
from scipy import ndimage
from sklearn.metrics import auc, average_precision_score, roc_curve

from klip_jax.metrics import auroc


def pixel_metrics(heatmaps, masks, regions, is_id) -> dict[str, float]:
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
    values = {
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
        values["dice_fpr05_id"] = dice(scores > threshold, labels)
    return values


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
