"""Detection between images: the ROC of each detector, and scores by group."""

import numpy as np
from jaxtyping import Bool
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from klip_jax.data.base import natural
from klip_jax.metrics import auroc
from klip_jax.report.canvas import BLUE, DPI, INK, RED, RULE, label_axes, png
from klip_jax.report.table import Table
from klip_jax.report.text import name_of, plain

GROUPS = (RED, "#d98a00", "#7b4fa3", "#2e8b57", "#8a5a3c", "#c2508c")
OTHERS = ("#2b6c9f", "#d98a00", "#7b4fa3", "#2e8b57", "#8a5a3c", "#c2508c")
DOTS = 300
"""Scores drawn of a group; of more, as many spread over their ranks."""
POINTS = 1000
"""Corners drawn of a ROC."""


def roc_figure(table: Table, usable: Bool[np.ndarray, " n"]) -> bytes:
    """Draw the detection ROC of each detector, and the main one's scores by group.

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
    figure = Figure((10.6, 3.9), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
    _draw_roc(left, table, known, is_ood)
    _draw_scores(right, table, known)
    return png(figure)


def _draw_roc(ax, table, known, is_ood):
    scores = {name: v[known] for name, v in table.scores.items()}
    scores = {name: v for name, v in scores.items() if np.isfinite(v).all()}
    area = {name: auroc(v, is_ood) for name, v in scores.items()}
    is_control = {
        n: a["control"] for n, a in table.detectors.items() if n != table.main
    }
    controls = [n for n in scores if is_control.get(n)]
    others = sorted((n for n in scores if is_control.get(n) is False), key=area.get)
    best = max(controls, key=area.get, default=None)
    colors = dict(zip(reversed(others), OTHERS, strict=False))
    ax.plot([0, 1], [0, 1], color=RULE, lw=0.8)
    grey, quiet = "#aab4be", "other controls" if best in controls else None
    plain_ones = [n for n in controls if n != best]
    for name in [*plain_ones, *others, *([best] if best else []), table.main]:
        if name not in scores:
            continue
        label = f"{plain(name_of(name), 24)}  {area[name]:.2f}"
        if name == table.main:
            style = dict(color=RED, lw=2, label=label)
        elif name == best:
            style = dict(color=INK, lw=1.2, ls="--", label=f"{label} (best control)")
        elif name in colors:
            style = dict(color=colors[name], lw=1.1, label=label)
        else:
            style = dict(color=grey, lw=0.8, label=quiet)
            quiet = None
        fpr, tpr, _ = roc_curve(is_ood, scores[name])
        some = np.linspace(0, len(fpr) - 1, min(POINTS, len(fpr))).round().astype(int)
        ax.plot(fpr[some], tpr[some], **style)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes = "in-distribution flagged", "anomalous flagged"
    label_axes(ax, "Detection between images", *axes)
    handles, labels = ax.get_legend_handles_labels()
    style = dict(frameon=False, fontsize=8, loc="lower right")
    for said in ax.legend(handles[::-1], labels[::-1], **style).get_texts():
        said.set_parse_math(False)


def _draw_scores(ax, table, known):
    columns = table.columns[table.main]
    groups = ["id", *sorted(set(table.groups[known]) - {"id", ""}, key=natural)]
    for row, group in enumerate(groups):
        own = np.flatnonzero(known & (table.groups == group))
        own = own[np.argsort(columns["score"][own], kind="stable")]
        some = np.linspace(0, len(own) - 1, min(DOTS, len(own))).round().astype(int)
        color = BLUE if group == "id" else GROUPS[(row - 1) % len(GROUPS)]
        place = row + 0.6 * (some + 0.5) / len(own) - 0.3
        score, error = (columns[k][own[some]] for k in ("score", "stderr"))
        error = np.nan_to_num(error)
        ax.errorbar(score, place, xerr=error, fmt="o", ms=3, lw=0.7, color=color)
    ax.set_yticks(range(len(groups)), [plain(g, 18) for g in groups], parse_math=False)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    title = f"{plain(name_of(table.main), 24)}: scores, with their Monte Carlo error"
    label_axes(ax, title, "score", "")
