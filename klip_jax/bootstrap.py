"""Bootstrap intervals of any statistic of images: pure numpy.

The bootstrap redraws images, or patients where known. A statistic is a function of how
often each image was drawn, weights [R, N] -> values [R]; all statistics see the same
resamples, a few at a time, so that memory grows with N and never with N x N.

Reference: Efron and Tibshirani 1993, ch. 13 (percentile interval).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Num

Statistic: TypeAlias = Callable[[Float[np.ndarray, "r n"]], Float[np.ndarray, " r"]]
"""How often each of N images was drawn, R times -> R values."""
Interval: TypeAlias = dict[str, float]
"""{"value", "low", "high"}."""
RESAMPLES = 1000
_FEW = 10_000
_AT_ONCE = 2**18  # weights at a time: more would not fit into a core's cache


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
