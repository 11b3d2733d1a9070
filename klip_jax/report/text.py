"""Numbers and names as they are read."""

import math

import numpy as np

SIDES = {"id": "in-distribution", "ood": "anomalous", "unknown": "of unknown group"}
"""Sides of a run's images, in words."""
KINDS = {"id": "in-distribution", "ood": "anomalous", "unknown": "unknown"}
"""Classes of the page that colour them."""


def name_of(detector: str) -> str:
    """Return the name of a detector as it is read: "posterior std"."""
    return detector.replace("_", " ")


def interval(estimate: dict[str, float], places: int = 2) -> str:
    """Return "0.93 [0.88, 0.97]" of {"value", "low", "high"}."""
    value, low, high = (number(estimate[k], places) for k in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def number(value: float, places: int = 2) -> str:
    """Return "0.93", with a true minus."""
    return f"{value:.{places}f}".replace("-", "\N{MINUS SIGN}")


def plus_minus(value: float, error: float) -> str:
    """Return "12.30 +- 0.45": two digits of the error, the value to the same place."""
    if not np.isfinite(value) or not np.isfinite(error) or not 0 < error < 1e6:
        return f"{value:.3g}"
    places = min(6, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:.{places}f} \N{PLUS-MINUS SIGN} {error:.{places}f}"


def p_text(p: float) -> str:
    """Return "= 0.036" or "< 0.001"."""
    return f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def where_it_broke(score: float, first_bad_step: int) -> str:
    """Return "not finite from step 3", or where else; "" if nothing broke."""
    if first_bad_step >= 0:
        return f"not finite from step {first_bad_step}"
    return "" if np.isfinite(score) else "not finite in the detector"


def plain(text: str, longest: int = 40) -> str:
    """Return `text` as one short printable line."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
