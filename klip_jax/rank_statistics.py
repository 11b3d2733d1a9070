"""Simulation-based calibration: is the truth one more draw of the posterior?

x ~ p(x), y ~ p(y | x), L draws of a sampler given y: where the sampler is exact, x and
its draws are exchangeable, and the rank of f(x) among f(draws) is uniform on 0 .. L for
any number f. Draws too narrow make a U of the ranks, too wide ones a hill, and a bias a
slope. One number beside it,

    spread / error = sqrt( (1 + 1/L) mean s^2 / mean (x - m)^2 ),

m and s^2 the mean and the unbiased variance of the draws, is 1 where they are exact,
and below 1 where they are too sure. Pure numpy.

Reference: Talts et al. 2018; Cook, Gelman and Rubin 2006; docs/theory.md, section 9.
"""

import numpy as np
from jaxtyping import ArrayLike, Float, Int, Num
from scipy import stats


def ranks(
    truth: Num[ArrayLike, "r q"], draws: Num[ArrayLike, "r l q"]
) -> Int[np.ndarray, "r q"]:
    """Return how many draws are below the truth, of each repetition and quantity.

    Args:
      truth: q numbers of each of R repetitions.
      draws: the same numbers of L draws each; not finite ones count as below nothing.
    """
    return np.sum(np.asarray(draws) < np.asarray(truth)[:, None], 1)


def uniform_p_value(
    ranks: Int[ArrayLike, "r q"], draws: int, bins: int = 10
) -> Float[np.ndarray, " q"]:
    """Return the p-value of uniform ranks, by a chi-square over bins, of each quantity.

    Args:
      ranks: 0 .. `draws`, of R independent repetitions.
      draws: L; L + 1 should be a multiple of the bins, or bins differ in size.
      bins: at most; R / bins should be 5 at least.

    Raises:
      ValueError: if a rank is out of range, or bins have too few repetitions.
    """
    ranks = np.asarray(ranks)
    bins = min(bins, draws + 1)
    if ranks.min() < 0 or ranks.max() > draws:
        raise ValueError(f"ranks must be in 0 .. {draws}, the number of draws")
    if len(ranks) < 5 * bins:
        raise ValueError(
            f"{len(ranks)} repetitions in {bins} bins: need 5 a bin, or fewer bins"
        )
    which = np.arange(draws + 1) * bins // (draws + 1)
    expected = np.bincount(which) / (draws + 1) * len(ranks)
    counts = [np.bincount(which[r], minlength=bins) for r in ranks.T]
    return np.array([stats.chisquare(count, expected).pvalue for count in counts])


def spread_over_error(
    truth: Num[ArrayLike, "r q"], draws: Num[ArrayLike, "r l q"]
) -> float:
    """Return spread / error over all repetitions and quantities; 1 is calibrated.

    Raises:
      ValueError: if there are fewer than 2 draws.
    """
    truth, draws = np.asarray(truth, np.float64), np.asarray(draws, np.float64)
    count = draws.shape[1]
    if count < 2:
        raise ValueError(f"{count} draws: a spread needs at least 2")
    variance = np.mean(draws.var(1, ddof=1)) * (1 + 1 / count)
    return float(np.sqrt(variance / np.mean((truth - draws.mean(1)) ** 2)))
