"""Detection between images: the ROC of each detector, and scores by group."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from markupsafe import Markup
from sklearn.metrics import roc_curve

from klip_jax.data.base import natural
from klip_jax.metrics import auroc
from klip_jax.report.charts import Chart
from klip_jax.report.table import Table
from klip_jax.report.text import name_of, plain

DOTS = 300
"""Scores drawn of a group; of more, as many spread over their ranks."""
POINTS = 300
"""Corners drawn of a ROC."""
COLORED = 5
"""Other detectors that have a colour of their own."""


@dataclasses.dataclass(frozen=True)
class Roc:
    """The ROC of one detector.

    Attributes:
      name: of the detector.
      kind: "main", "rival-1" to "rival-5", "rival", "best-control" or "control".
      area: below it.
      fpr, tpr: corners.
    """

    name: str
    kind: str
    area: float
    fpr: Float[np.ndarray, " k"]
    tpr: Float[np.ndarray, " k"]


def read_roc(table: Table, usable: Bool[np.ndarray, " n"]) -> list[Roc]:
    """Return the ROCs of all detectors with a score of every image, best first.

    Args:
      table: of the run, with "id" and at least one anomalous group.
      usable: images that count.

    Raises:
      ValueError: if one side is missing.
    """
    sides = table.sides
    known = usable & ~sides["unknown"]
    is_ood = sides["ood"][known]
    if not is_ood.any() or is_ood.all():
        raise ValueError("the ROC needs images of group 'id' and of another group")
    scores = {name: v[known] for name, v in table.scores.items()}
    scores = {name: v for name, v in scores.items() if np.isfinite(v).all()}
    area = {name: auroc(v, is_ood) for name, v in scores.items()}
    rivals, curves = 0, []
    best_control = True
    for name in sorted(scores, key=lambda n: (n != table.main, -area[n])):
        if name == table.main:
            kind = "main"
        elif table.detectors[name]["control"]:
            kind = "best-control" if best_control else "control"
            best_control = False
        else:
            rivals += 1
            kind = f"rival-{rivals}" if rivals <= COLORED else "rival"
        fpr, tpr, _ = roc_curve(is_ood, scores[name])
        some = np.linspace(0, len(fpr) - 1, min(POINTS, len(fpr))).round().astype(int)
        curves.append(Roc(name, kind, float(area[name]), fpr[some], tpr[some]))
    return curves


def roc_chart(curves: list[Roc]) -> Markup:
    """Draw what `read_roc` returns, the main detector on top, chance as a diagonal."""
    chart = Chart(
        (0, 1),
        (0, 1),
        "in-distribution images flagged",
        "anomalous images flagged",
        (360, 340),
    )
    order = sorted(curves, key=lambda c: (c.kind != "control", c.kind == "main"))
    marks = [chart.line([0, 1], [0, 1], "chance")]
    marks += [chart.line(c.fpr, c.tpr, f"line {c.kind}") for c in order]
    areas = ", ".join(f"{name_of(c.name)} {c.area:.2f}" for c in curves)
    return chart.drawn(marks, f"ROC curves; areas: {areas}")


def scores_chart(table: Table, usable: Bool[np.ndarray, " n"]) -> Markup:
    """Draw the main detector's scores, a row a group, with their Monte Carlo error."""
    known = usable & ~table.sides["unknown"]
    columns = table.columns[table.main]
    groups = ["id", *sorted(set(table.groups[known]) - {"id", ""}, key=natural)]
    kept = []
    for row, group in enumerate(groups):
        own = np.flatnonzero(known & (table.groups == group))
        own = own[np.argsort(columns["score"][own], kind="stable")]
        some = np.linspace(0, len(own) - 1, min(DOTS, len(own))).round().astype(int)
        place = row + 0.7 * (some + 0.5) / max(len(own), 1) - 0.35
        score, error = (columns[k][own[some]] for k in ("score", "stderr"))
        kept.append((group, place, score, np.nan_to_num(error)))
    scores = np.concatenate([score for _, _, score, _ in kept])
    errors = np.concatenate([error for _, _, _, error in kept])
    low, high = float((scores - errors).min()), float((scores + errors).max())
    room = 0.03 * (high - low or 1)
    chart = Chart(
        (low - room, high + room),
        (len(groups) - 0.5, -0.5),
        f"score of {plain(name_of(table.main), 24)}",
        size=(360, max(340, 26 * len(groups) + 60)),
        left=92,
    )
    marks = []
    for group, place, score, error in kept:
        kind = "in-distribution" if group == "id" else "anomalous"
        for s, e, p in zip(score, error, place, strict=True):
            if e:
                marks.append(chart.line([s - e, s + e], [p, p], f"error {kind}"))
        marks.append(chart.dots(score, place, kind))
    names = [plain(group, 15) for group in groups]
    return chart.drawn(marks, "scores of the images by group", y_ticks=names)
