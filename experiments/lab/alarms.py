"""False alarms and power of p-values at a nominal 5 %, from scores alone.

A p-value without data compares a score with the reference law, draws of the model
itself (`calibration.p_value`). Split conformal needs in-distribution images: half of
them are the law, the other half is judged, over many random halves.
"""

import numpy as np

from klip_jax.bootstrap import bootstrap, mean_of
from klip_jax.calibration import conformal_p_value
from lab import tables

NOMINAL = 0.05
SPLITS = 200


def rates(scores, p_values, groups, clusters) -> dict:
    """Return {law: {group: share of images with p <= 5 %}} with intervals.

    Args:
      scores: [N], bigger = more anomalous.
      p_values: [N], by the reference law; NaN leaves its row out.
      groups: N names; "id" is in-distribution.
      clusters: N names, of what the bootstrap resamples.
    """
    scores, groups, clusters = map(np.asarray, (scores, groups, clusters))
    flagged = {}
    if np.isfinite(p_values).all():
        flagged["reference law"] = np.asarray(p_values) <= NOMINAL
    # With a smaller half no p-value is small enough, whatever the score.
    if sum(groups == "id") // 2 + 1 >= 1 / NOMINAL:
        flagged["split conformal"] = _conformal(scores, groups == "id")
    return {
        name: {
            str(group): bootstrap(mean_of(values[some]), clusters[some].tolist())
            for group in dict.fromkeys(groups)
            for some in [groups == group]
        }
        for name, values in flagged.items()
    }


def _conformal(scores, is_id):
    """Share of random halves under which each image is flagged [N].

    An in-distribution image counts in the halves that do not hold it.
    """
    rng = np.random.default_rng(0)
    own = np.flatnonzero(is_id)
    flagged, judged = np.zeros(len(scores)), np.zeros(len(scores))
    for _ in range(SPLITS):
        half = rng.permutation(own)[: len(own) // 2]
        rest = np.setdiff1d(np.arange(len(scores)), half)
        flagged[rest] += conformal_p_value(scores[rest], scores[half]) <= NOMINAL
        judged[rest] += 1
    return flagged / judged


def table(flagged: dict) -> str:
    """Return the rates as a markdown table."""
    if not flagged:
        return ""
    groups = list(next(iter(flagged.values())))
    rows = [
        [name, *(tables.interval(rates_of[g], 2) for g in groups)]
        for name, rates_of in flagged.items()
    ]
    return tables.markdown(["p <= 0.05 by", *groups], rows)
