"""P-values of any score: what to expect when nothing is wrong.

Raw KLIP is not an anomaly score: its mean over healthy images is the information
I(x; y). So draw x from the model itself, measure it with the same operator and noise,
and run the SAME detector: the law of the score gives a p-value. No data is needed, but
the law is the MODEL's: with a wrong prior the false-alarm rate is wrong too (theory:
34-87 % instead of 5 %), the ranking is not. Where healthy images are at hand, the
split-conformal p-value stands beside it, whose false-alarm rate holds whatever the
prior is.

A trained prior errs less on its own draws, as on the images it learned, than on others,
and some scores are squares of such errors. Their law is multiplied by the ratio of the
two, which the weights' record tells (`error_ratio`): healthy images of new patients
would be flagged several times too often without it.

A detector that is fitted is judged on draws it was not fitted on.

Reference: Nott et al. 2016 (prior-data conflict by prior-to-posterior divergence); Vovk
et al. 2005 (conformal prediction); docs/theory.md, section 10.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from klip_jax.types import Scalar


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


def error_ratio(record: Mapping[str, Any], window: tuple[Scalar, Scalar]) -> float:
    """Return how much larger a prior's squared error is on images it has not seen.

    int E_test|x - D(x_s)|^2 / s^2 d ln s over int E_train|x - D(x_s)|^2 / s^2 d ln s,
    from (lowest, highest) s of the window, log-linear between the recorded levels.

    Args:
      record: of the weights; its "errors" hold "levels", "train" and "test" [K].
      window: of the detector, image units.

    Returns:
      The ratio; 1 if the record does not tell both errors.

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
    return float(test / train)
