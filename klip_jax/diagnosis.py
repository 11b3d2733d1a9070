"""Do prior, operator and noise fit these data at all? Two sentences for the report.

A p-value tests the model: where the prior is wrong, healthy images are flagged too. The
misfit of posterior samples, |y - A x|^2 over its expectation, tests mostly the scanner:
under the model it is 1 on average, because y and A x + n have the same law.
"""

from collections.abc import Sequence

import numpy as np

from klip_jax.results import ImageResult

FITS = (0.8, 1.25)
"""Range of the median misfit that calls for no check."""


def misfit(results: Sequence[ImageResult]) -> dict[str, float] | None:
    """Return {"value", "low", "high"}: median, 5 and 95 % quantile of the images.

    None if no image has one.
    """
    values = [float(r.arrays["misfit"]) for r in results if "misfit" in r.arrays]
    if not values:
        return None
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    return {"value": float(median), "low": float(low), "high": float(high)}


def misfit_sentence(found: dict[str, float] | None) -> str:
    """Say what `misfit` found, and what to check where it is far from 1."""
    if found is None:
        return ""
    sentence = (
        f"The reconstructions miss the measurements by {found['value']:.2f} times the "
        f"energy of the noise (median; 90 % of the images: {found['low']:.2f} to "
        f"{found['high']:.2f}). 1 is expected where prior, operator and noise are right"
    )
    if found["value"] > FITS[1]:
        sentence += (
            "; so much more says that the operator's geometry, noise_std or the prior "
            "is not that of these data"
        )
    elif found["value"] < FITS[0]:
        sentence += "; so much less says that noise_std is larger than the data's noise"
    return f"{sentence}."


def alarms_sentence(results: Sequence[ImageResult]) -> str:
    """Count p < 0.05 on both sides: the first is a check of the reference law."""
    sides = {
        "in-distribution images": [r for r in results if r.group == "id"],
        "anomalous images": [r for r in results if r.group not in ("", "id")],
        "images": [r for r in results if not r.group],
    }
    found = []
    for name, images in sides.items():
        p = np.array([r.p_value for r in images])
        p = p[np.isfinite(p)]
        if p.size:
            law = f" ({0.05 * p.size:.1f} expected)" if name.startswith("in") else ""
            found.append(f"{np.sum(p < 0.05)} of {p.size} {name}{law}")
    return f"At p < 0.05 it flags {' and '.join(found)}." if found else ""
