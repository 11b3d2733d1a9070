"""How well scores tell anomalous images from others: pure numpy.

Detection asks whether the anomalous images rank above the others; `localization` asks
where inside an image, `lesions` asks it by lesion, `bootstrap` gives intervals. Bigger
is more out-of-distribution (OOD) everywhere.

References: Fawcett 2006 (ROC); Yang et al. 2022 (OpenOOD: AUPR, FPR95, CCR).
"""

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Num
from scipy import stats
from sklearn.metrics import auc, precision_recall_curve, roc_curve


def auroc(scores: Num[ArrayLike, " n"], positive: Bool[ArrayLike, " n"]) -> float:
    """Return P(score of a positive > of a negative) + P(equal) / 2; NaN if one class.

    Args:
      scores: finite values.
      positive: labels.
    """
    scores, positive = np.asarray(scores)[None], np.asarray(positive)[None]
    return float(aurocs(scores, positive, np.ones_like(positive))[0])


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


def ccr(
    scores: Num[ArrayLike, " n"],
    is_ood: Bool[ArrayLike, " n"],
    correct: Bool[ArrayLike, " n"],
    rate: float,
) -> float:
    """Return the share of ID images accepted AND classified correctly, CCR at a rate.

    Accepted is what scores below the highest bar that lets at most `rate` of the OOD
    images pass. NaN if one class is absent.

    Args:
      scores: bigger is more OOD.
      is_ood: labels.
      correct: whether the classifier is right; of OOD images it has no say.
      rate: of OOD images that are accepted, in [0, 1].

    Reference: Dhamija et al. 2018 (open-set classification rate), as in OpenOOD.
    """
    scores, is_ood = np.asarray(scores), np.asarray(is_ood, bool)
    ood = np.sort(scores[is_ood])
    if not len(ood) or is_ood.all():
        return float("nan")
    passed = int(np.floor(rate * len(ood) + 1e-9))
    bar = ood[passed] if passed < len(ood) else np.inf
    return float(np.mean((scores < bar)[~is_ood] & np.asarray(correct, bool)[~is_ood]))


def psnr(truth: np.ndarray, image: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB for a data range of 1."""
    error = np.mean((np.asarray(truth, np.float64) - image) ** 2)
    return float(-10 * np.log10(error)) if error else float("inf")
