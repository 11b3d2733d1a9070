"""P-values of any score: what to expect when nothing is wrong.

Raw KLIP is not an anomaly score: its mean over healthy images is the information
I(x; y). So run the SAME detector on images of which nothing is wrong, measured by the
same operator and noise: the law of its score gives a p-value.

Healthy images that the prior has not seen are the first law (split conformal): its
false-alarm rate holds whatever prior and detector are, if those images and the one that
is judged are exchangeable. Draws of the model are the second, which needs no data, but
is the MODEL's: with a wrong prior the false-alarm rate is wrong too (theory: 34-87 %
instead of 5 %), the ranking is not.

A trained prior errs less on its own draws, as on the images it learned, than on others,
and some scores are squares of such errors. Their law is multiplied by the ratio of the
two, which the weights' record tells (`error_ratio`): healthy images of new patients
would be flagged several times too often without it.

A detector that is fitted is judged on draws it was not fitted on.

Reference: Nott et al. 2016 (prior-data conflict by prior-to-posterior divergence); Vovk
et al. 2005 (conformal prediction); docs/theory.md, section 10.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from klip_jax.types import Scalar

ALARM = 0.05
"""An image is flagged where its p-value is at most this."""
BORDERLINE = 2 * ALARM
"""Up to it an image that is not flagged is called borderline."""
FITS = 0.5, 2.0
"""Misfits of one image between which its score says something: above them the samples
contradict y, below them noise_std is larger than the noise."""
LAWS = {"p_conformal": "healthy images", "p_value": "draws of the model"}
"""What laws are of, by the name of their p-values; the one trusted most comes first."""


def first_law(p_values: Mapping[str, Float[np.ndarray, " n"]]) -> str:
    """Return whose p-values count: those of the first of `LAWS` that gives any.

    Args:
      p_values: of some images, by the names of `LAWS`; NaN where there is none.

    Returns:
      A name of `LAWS`; "" if no law gives any.
    """
    given = (n for n in LAWS if n in p_values and np.isfinite(p_values[n]).any())
    return next(given, "")


class Departure(NamedTuple):
    """How far p-values are from uniform on [0, 1].

    Attributes:
      low: sup F(p) - p, by how much too many are small, with F their distribution.
      high: sup p - F(p), by how much too many are large.
    """

    low: float
    high: float

    @property
    def ks(self) -> float:
        """The Kolmogorov-Smirnov distance."""
        return max(self.low, self.high)


def departure(p_values: Float[np.ndarray, " n"]) -> Departure:
    """Return how far finite p-values, at least one, are from uniform.

    Reference: Kolmogorov 1933.
    """
    p = np.sort(np.asarray(p_values, np.float64))
    step = np.arange(len(p) + 1) / len(p)
    return Departure(float((step[1:] - p).max()), float((p - step[:-1]).max()))


def by_chance(images: int, law: float) -> float:
    """Return what `Departure.ks` exceeds in 1 % of cases though nothing is wrong.

    c sqrt(1 / n + 1 / m), as both are samples: n images and the m scores of the law.

    Reference: Smirnov 1939.
    """
    return float(np.sqrt(np.log(2 / 0.01) / 2 * (1 / images + 1 / law)))


def p_value(
    score: Float[Any, "*n"] | float, law: Float[Any, " m"]
) -> Float[np.ndarray, "*n"]:
    """Return (1 + #{law >= score}) / (M + 1), the chance of so large a score.

    Args:
      score: of an image, or of many.
      law: scores of M draws of the model, none of which was used to fit anything.

    Returns:
      One p-value a score, in [1 / (M + 1), 1]. NaN where the score is not finite, and
      everywhere if the law is empty or holds what is not finite: nothing that failed is
      ever significant.
    """
    score, law = np.asarray(score, np.float64), np.asarray(law, np.float64)
    below = np.searchsorted(np.sort(law), score, side="left")
    p = (1 + len(law) - below) / (len(law) + 1)
    known = np.isfinite(score) & np.isfinite(law).all() & (len(law) > 0)
    return np.where(known, p, np.nan)


def conformal_p_value(
    score: Float[Any, "*n"] | float, healthy: Float[Any, " m"]
) -> Float[np.ndarray, "*n"]:
    """Return (1 + #{healthy >= score}) / (n + 1), the split-conformal p-value.

    If the image is exchangeable with the n healthy ones, P(p <= a) <= a for every a,
    whatever prior and detector are: a false-alarm rate without a model.

    Args:
      score: of an image, or of many.
      healthy: scores of n healthy images that the detector was not fitted on.

    Returns:
      One p-value a score; NaN as in `p_value`.

    Reference: Vovk et al. 2005, section 2.2; Bates et al. 2023 (outliers).
    """
    return p_value(score, healthy)


def widened(
    draws: Float[np.ndarray, " m"], detector: Any, record: Mapping[str, Any]
) -> Float[np.ndarray, " m"]:
    """Return scores of the model's own draws as of images that it has not seen.

    Args:
      draws: scores of draws, unordered.
      detector: its `unseen_factor`, if it has one, tells how much larger they are.
      record: of the weights.
    """
    factor = getattr(detector, "unseen_factor", None)
    return np.asarray(draws) * (1.0 if factor is None else float(factor(record)))


def error_ratio(record: Mapping[str, Any], window: tuple[Scalar, Scalar]) -> float:
    """Return how much larger a prior's squared error is on images it has not seen.

    int E_test|x - D(x_s)|^2 / s^2 d ln s over int E_train|x - D(x_s)|^2 / s^2 d ln s,
    from (lowest, highest) s of the window, log-linear between the recorded levels. It
    is never below 1: images that a prior has not seen are at best as easy.

    Args:
      record: of the weights; its "errors" hold "levels", "train" and "test" [K].
      window: of the detector, image units.

    Returns:
      The ratio, >= 1; 1 if the record does not tell both errors.

    Raises:
      ValueError: if an error is not a positive number, or they are not one a level.
    """
    names, table = ("levels", "train", "test"), record.get("errors")
    if not isinstance(table, Mapping) or not set(names) <= set(table):
        return 1.0
    known, *errors = (np.asarray(table[name], np.float64) for name in names)
    if not all(np.all((e > 0) & np.isfinite(e)) for e in (known, *errors)):
        raise ValueError("the weights' record: errors must be positive numbers")
    if any(e.shape != known.shape or e.ndim != 1 for e in (known, *errors)):
        raise ValueError("the weights' record: there must be one error a level")
    low, high = (float(s) for s in window)
    levels = np.log(np.geomspace(low, high, 32))
    train, test = (
        np.sum(np.exp(np.interp(levels, np.log(known), np.log(e)) - 2 * levels))
        for e in errors
    )
    return max(1.0, float(test / train))
