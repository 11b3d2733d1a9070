"""Whether the p-values of a run are what they say, law by law.

Those of in-distribution images are uniform on [0, 1] if the law describes the data. Too
many small ones are false alarms, too many large ones are anomalies that nobody sees;
either is told where chance alone does not explain it. Chance counts patients, where
they are known: their images are no independent witnesses.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from klip_jax import calibration
from klip_jax.calibration import ALARM
from klip_jax.report.table import Table

ALPHAS = 0.01, 0.05, 0.10
BINS = 10
KEYS = {"p_value": "model", "p_conformal": "conformal"}
"""What metrics.json calls the laws of `calibration.LAWS`."""
_KINDS = {"p_value": "draws", "p_conformal": "healthy"}


def of_detector(
    table: Table, name: str, sizes: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return what each law that gives p-values of a detector says.

    Args:
      table: of the run.
      name: of the detector.
      sizes: "draws" and "healthy", scores of a law by detector, and "patients" of the
        healthy images, as config.json tells them; what it does not tell lacks.

    Returns:
      "model" and "conformal": `histogram` of the p-values of in-distribution images in
      ten bins, `ks` their distance from uniform, `flagged_id` how many of how many have
      p <= 0.01, 0.05, 0.10, if there are such images; `size` of the law; `sentence`,
      "" if nothing is to be said, and `warning`, whether it does not describe the data.
    """
    laws = {}
    for law, key in KEYS.items():
        p = table.columns[name][law]
        if not np.isfinite(p).any():
            continue
        size = sizes.get(_KINDS[law], {}).get(name)
        entry: dict[str, Any] = {} if size is None else {"size": int(size)}
        own = table.sides["id"] & np.isfinite(p)
        if own.any():
            entry |= _of_known(p[own])
        sentence = _warning(table, law, p, size)
        entry["warning"] = bool(sentence)
        patients = sizes.get("patients", 0) if law == "p_conformal" else 0
        if not sentence and size is not None and 0 < patients < size:
            sentence = (
                f"The law is of {size} images of {patients} patients: of a new patient "
                "p-values hold on average over patients, not for each."
            )
        laws[key] = entry | {"sentence": sentence}
    return laws


def needs_look(table: Table) -> dict[str, Any]:
    """Return how many images the main detector flags, of how many, by which law."""
    columns = table.columns[table.main]
    law = calibration.first_law(columns)
    if not law:
        return {}
    p = columns[law][np.isfinite(columns[law])]
    return dict(count=int((p <= ALARM).sum()), of=p.size, alpha=ALARM, law=law)


def _of_known(p) -> dict[str, Any]:
    # Bins (0, 0.1], (0.1, 0.2], ..: the first holds what is flagged at 0.1.
    bins = np.ceil(np.round(BINS * p, 9)).astype(int) - 1
    counts = np.bincount(bins, minlength=BINS).tolist()
    flagged = {f"{a:g}": [int((p <= a).sum()), p.size] for a in ALPHAS}
    ks = calibration.departure(p).ks
    return {"histogram": counts, "ks": ks, "flagged_id": flagged}


def _warning(table, law, p, size) -> str:
    own = table.sides["id"] & np.isfinite(p)
    known = bool(own.any())
    own = own if known else table.sides["unknown"] & np.isfinite(p)
    if not own.any():
        return ""
    departure = calibration.departure(p[own])
    limit = calibration.by_chance(
        _independent(table, own), np.inf if size is None else size
    )
    words, flagged = calibration.LAWS[law], float((p[own] <= ALARM).mean())
    subject = "In-distribution images" if known else "Images"
    if departure.high > limit and departure.high >= departure.low:
        return (
            f"{subject} have larger p-values by {words} than they should (KS distance "
            f"{departure.high:.2f}): anomalies are missed, this law does not describe "
            "these data."
        )
    if departure.low > limit and known:
        return (
            f"{subject} have smaller p-values by {words} than they should (KS distance "
            f"{departure.low:.2f}): {100 * flagged:.0f} % of them are flagged at "
            f"{ALARM}, this law does not describe these data."
        )
    if departure.low > limit and flagged > 0.5:
        return (
            f"{100 * flagged:.0f} % of the images have p <= {ALARM} by {words}: most "
            "are anomalous, or this law does not describe these data."
        )
    return ""


def _independent(table: Table, own: Bool[np.ndarray, " n"]) -> int:
    return len(set(table.clusters[own]))
