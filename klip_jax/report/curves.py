"""Curves of a run: detection ROC, scores by group, densities over noise levels."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from sklearn.metrics import roc_curve

from klip_jax.data.base import natural
from klip_jax.metrics import auroc
from klip_jax.report.figures import BLUE, DPI, INK, QUIET, RED, RULE, png
from klip_jax.report.maps import batches, read
from klip_jax.report.table import Table
from klip_jax.report.text import name_of, plain
from klip_jax.run.store import Store

GROUPS = (RED, "#d98a00", "#7b4fa3", "#2e8b57", "#8a5a3c", "#c2508c")
OTHERS = ("#2b6c9f", "#d98a00", "#7b4fa3", "#2e8b57", "#8a5a3c", "#c2508c")
DOTS = 300
"""Scores drawn of a group; of more, as many spread over their ranks."""
POINTS = 1000
"""Corners drawn of a ROC."""

_SIDES = {
    "id": ("in-distribution", BLUE),
    "ood": ("anomalous", RED),
    "unknown": ("images", QUIET),
}


@dataclasses.dataclass(frozen=True)
class Density:
    """A density over noise levels: mean over the images of one side, and its error.

    Attributes:
      sigma: noise levels, image units.
      mean, error: by level and curve, in the unit of the score per ln sigma.
      count: of the images.
    """

    sigma: Float[np.ndarray, " k"]
    mean: Float[np.ndarray, "k m"]
    error: Float[np.ndarray, "k m"]
    count: int


def density_detectors(table: Table) -> list[str]:
    """Return the detectors that store "levels" [K] and "density" [K] or [K, M]."""
    extras = {name: about["extras"] for name, about in table.detectors.items()}
    return [n for n, e in extras.items() if {"levels", "density"} <= e.keys()]


def read_density(store: Store, table: Table, name: str) -> dict[str, Density]:
    """Return the mean density of detector `name` by side, images not finite left out.

    Args:
      store, table: of the run.
      name: one of `density_detectors`.
    """
    if not len(table.index):
        return {}
    array, levels = (store.array(f"{name}/{extra}") for extra in ("density", "levels"))
    shape = array.shape[1], int(np.prod(array.shape[2:]))
    sides = table.sides
    counts = dict.fromkeys(sides, 0)
    totals, squares = ({side: np.zeros(shape) for side in sides} for _ in range(2))
    first = np.zeros((0, *shape))
    for rows in batches(store, table, shape):
        density = read(array, table.index[rows]).astype(np.float64)
        density = density.reshape(len(rows), *shape)
        finite = np.isfinite(density).all((1, 2))
        # Squares of what is left of the first image: no digits are lost.
        first = first if len(first) else density[finite][:1]
        for side, own in sides.items():
            part = density[finite & own[rows]] - first
            counts[side] += len(part)
            totals[side] += part.sum(0)
            squares[side] += (part**2).sum(0)
    found = {}
    for side, count in counts.items():
        if count:
            total = totals[side]
            spread = squares[side] - total**2 / count
            error = np.sqrt(np.maximum(spread, 0) / max(count - 1, 1) / count)
            sigma = read(levels, table.index[:1])[0]
            found[side] = Density(sigma, first[0] + total / count, error, count)
    return found


def density_figure(densities: dict[str, Density], titles: list[str]) -> bytes:
    """Draw densities against sigma, mean +- standard error over images, by curve.

    Blue is in-distribution, red anomalous, grey unknown.

    Args:
      densities: what `read_density` returns.
      titles: of the curves; as many panels are drawn as there are curves.
    """
    count = next(iter(densities.values())).mean.shape[1]
    titles = (
        titles if len(titles) == count else [f"curve {m + 1}" for m in range(count)]
    )
    figure = Figure((10.6, 3.1), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, max(count, 3), squeeze=False)[0]
    for ax in axes[count:]:
        ax.set_visible(False)
    for m, ax in enumerate(axes[:count]):
        for side, density in densities.items():
            label, color = _SIDES[side]
            mean, error = density.mean[:, m], density.error[:, m]
            label = f"{label} ({density.count})"
            ax.plot(density.sigma, mean, "o-", ms=3, lw=1.4, label=label, color=color)
            if density.count > 1:
                band = density.sigma, mean - error, mean + error
                ax.fill_between(*band, alpha=0.2, lw=0, color=color)
        ax.axhline(0, color=RULE, lw=0.8, zorder=0)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.xaxis.set_minor_locator(NullLocator())
        y = "" if m else "score per ln sigma"
        _label(ax, titles[m], "noise level sigma (image units)", y)
        if not m:
            ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    return png(figure)


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
    _label(ax, "Detection between images", *axes)
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
    _label(ax, title, "score", "")


def _label(ax, title, x, y):
    ax.set_title(title, fontsize=9, color=INK, loc="left", parse_math=False)
    ax.set_xlabel(x, fontsize=8, color=QUIET)
    ax.set_ylabel(y, fontsize=8, color=QUIET)
    ax.tick_params(labelsize=8, colors=QUIET, length=3, width=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(color=RULE)
