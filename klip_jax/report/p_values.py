"""What the p-values of a run say: who needs a look, and whether the law describes them.

If nothing were odd and the law were that of these images, p-values would be uniform: a
tenth of the images in each of ten bars. Odd images lift the first bar. Healthy ones
that pile up at an end say that the law is of other data.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from klip_jax.calibration import ALARM, BORDERLINE, FITS, LAWS, first_law
from klip_jax.report.charts import Chart, ticks
from klip_jax.report.table import Table
from klip_jax.report.text import KINDS, SIDES

BINS = 10

BADGES = {
    "failed": "failed",
    "flagged": "flagged",
    "borderline": "borderline",
    "clear": "clear",
    "unknown": "no p-value",
    "misfit": "measurement does not fit",
}
"""Words of what is said of an image; "misfit" stands beside one of the others."""


class Judged(NamedTuple):
    """What is said of each image.

    Attributes:
      law: "p_value" (the model's), "p_conformal", or "" where there is none.
      alpha: an image is flagged at p <= alpha, borderline up to about twice that.
      p: p-values under that law.
      badges: a key of `BADGES`.
      misfit: whether its measurement does not fit the model.
    """

    law: str
    alpha: float
    p: Float[np.ndarray, " n"]
    badges: Shaped[np.ndarray, " n"]
    misfit: Bool[np.ndarray, " n"]


def judge(table: Table, metrics: dict[str, Any]) -> Judged:
    """Return what is said of each image by the main detector.

    Args:
      table: of the run.
      metrics: `needs_look` says by which law and alpha; else the first law that gives
        any p-value.
    """
    columns, asked = table.columns[table.main], metrics.get("needs_look") or {}
    alpha = float(asked.get("alpha", ALARM))
    law = asked.get("law") or first_law(columns)
    p = columns[law] if law else np.full(len(table.index), np.nan)
    badges = np.full(len(p), "unknown", object)
    with np.errstate(invalid="ignore"):
        badges[np.isfinite(p)] = "clear"
        badges[p <= alpha * BORDERLINE / ALARM] = "borderline"
        badges[p <= alpha] = "flagged"
        misfit = (table.misfit < FITS[0]) | (table.misfit > FITS[1])
    badges[~np.isfinite(columns["score"])] = "failed"
    return Judged(law, alpha, p, badges, misfit)


def order_of(table: Table, judged: Judged) -> Int[np.ndarray, " n"]:
    """Return the rows by p, the higher score first among equals.

    Failed images come first, where they are seen; images without p last.
    """
    score = table.scores[table.main]
    failed = judged.badges == "failed"
    p = np.where(failed, -1.0, np.nan_to_num(judged.p, nan=2.0))
    return np.lexsort((-np.nan_to_num(score), p))


def headline(judged: Judged) -> dict[str, Any]:
    """Return the first line of the page and what stands below it.

    Returns:
      `title`, "2 of 32 images need a look"; `lines`, sentences.
    """
    known, count = np.isfinite(judged.p), len(judged.p)
    failed = int((judged.badges == "failed").sum())
    flagged, of = int((judged.badges == "flagged").sum()), int(known.sum())
    if not of:
        title = f"{_images(count)}, most suspicious first"
        lines = ["There is no reference law, so no p-values."] if count else []
    else:
        title = f"{flagged or 'None'} of {_images(of)} {_need(flagged)} a look"
        have = "It has" if flagged == 1 else "They have" if flagged else "None has"
        lines = [
            f"{have} p \N{LESS-THAN OR EQUAL TO} {judged.alpha:g} by "
            f"{LAWS[judged.law]}; {judged.alpha * of:.1f} would have it by chance, if "
            "nothing were odd."
        ]
    if misfits := int(judged.misfit.sum()):
        do = "does" if misfits == 1 else "do"
        lines.append(
            f"{_images(misfits)} {do} not fit the measurement: check geometry, units "
            "and noise before the map."
        )
    if failed:
        lines.append(f"{_images(failed)} failed and {_has(failed)} no score.")
    return {"title": title, "lines": lines}


def histogram(table: Table, judged: Judged) -> dict[str, Any] | None:
    """Return the chart of the p-values with its sentence; None where there are none.

    Returns:
      `chart`, `sentence`, `sides` (kind and words of each colour).
    """
    known = np.isfinite(judged.p)
    count = int(known.sum())
    if not count:
        return None
    place = np.clip((judged.p[known] * BINS - 1e-9).astype(int), 0, BINS - 1)
    stacks = {
        side: np.bincount(place[own[known]], minlength=BINS)
        for side, own in table.sides.items()
        if own[known].any()
    }
    highest = max(np.sum(list(stacks.values()), 0).max(), count / BINS)
    chart = Chart((0, 1), (0, 1.08 * highest), "p-value", "images", (360, 190))
    marks, below = [], np.zeros(BINS)
    for side, counts in stacks.items():
        for i in np.flatnonzero(counts):
            ends = (i + 0.06) / BINS, (i + 0.94) / BINS
            marks.append(
                chart.bar(ends, (below[i], below[i] + counts[i]), f"bar {KINDS[side]}")
            )
        below = below + counts
    marks.append(chart.line([0, 1], [count / BINS] * 2, "chance"))
    flagged = int((judged.p[known] <= judged.alpha).sum())
    sentence = (
        "If nothing were odd and the law described these images, each bar would reach "
        "the dashed line."
    )
    about = f"Histogram of {count} p-values; {flagged} at or below {judged.alpha:g}"
    whole = [t for t in ticks(chart.y) if t == int(t)]
    return {
        "chart": chart.drawn(marks, about, y_ticks=whole),
        "sentence": sentence,
        "sides": [{"kind": KINDS[side], "words": SIDES[side]} for side in stacks],
    }


def warnings(metrics: dict[str, Any]) -> list[str]:
    """Return what is said where a law does not describe the data."""
    return [law["sentence"] for law in _laws(metrics) if law["warning"]]


def remarks(metrics: dict[str, Any]) -> list[str]:
    """Return what else is said of the laws of the main detector."""
    said = (law for law in _laws(metrics) if not law["warning"])
    return [law["sentence"] for law in said if law["sentence"]]


def _laws(metrics):
    return metrics["detectors"][metrics["main"]].get("laws", {}).values()


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _need(count: int) -> str:
    return "needs" if count in (0, 1) else "need"


def _has(count: int) -> str:
    return "has" if count == 1 else "have"
