"""Figures of the experiments, as PNG bytes: ROC, maps, cost, noise levels."""

import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from klip_jax import kl
from klip_jax.data.base import ImageSet
from klip_jax.metrics import auroc

OWN, OTHER, CHANCE = "#c0392b", "#8a95a1", "#c9d0d8"
STYLES = ("-", "--", ":", "-.")


def roc(scores: Mapping[str, np.ndarray], is_ood: np.ndarray) -> bytes:
    """Draw the ROC of each detector between images, the first one in red.

    Args:
      scores: of each detector [N], bigger is more anomalous.
      is_ood: which images are anomalous [N], bool.
    """
    figure = Figure((4.6, 4.6), dpi=110, layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=CHANCE, lw=0.8)
    for i, (name, values) in enumerate(scores.items()):
        fpr, tpr, _ = roc_curve(is_ood, values)
        style = dict(color=OTHER, lw=1.1, ls=STYLES[i % len(STYLES)])
        if not i:
            style = dict(color=OWN, lw=2, zorder=3)
        ax.plot(fpr, tpr, label=f"{name}  {auroc(values, is_ood):.2f}", **style)
    ax.set(xlabel="in-distribution images flagged", ylabel="anomalous images flagged")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=7, loc="lower right")
    return png(figure)


def side_by_side(
    images: ImageSet, maps: Mapping[str, np.ndarray], shown: Sequence[int]
) -> bytes:
    """Draw the chosen images, one a row, and beside each what every detector saw.

    Each map has its own colours, from its median to its 99.5th percentile there.

    Args:
      images: with masks, drawn as outlines.
      maps: {detector: [N, H, W]}.
      shown: indices of the rows.
    """
    size = 1.25 * (len(maps) + 1), 1.35 * len(shown)
    figure = Figure(size, dpi=110, layout="constrained")
    grid = figure.subplots(len(shown), len(maps) + 1, squeeze=False)
    for line, (row, i) in enumerate(zip(grid, shown, strict=True)):
        look = dict(cmap="gray", vmin=0, vmax=1)
        panels = {images.groups[i]: (images.images[i][..., 0], look)}
        for name, of_all in maps.items():
            low, high = np.quantile(of_all[i], [0.5, 0.995])
            panels[name] = of_all[i], dict(cmap="inferno", vmin=low, vmax=high)
        for ax, (name, (panel, look)) in zip(row, panels.items(), strict=True):
            ax.imshow(panel, interpolation="nearest", **look)
            if images.masks is not None and images.masks[i].any():
                ax.contour(images.masks[i], [0.5], colors=["#00d5c8"], linewidths=0.8)
            ax.set_axis_off()
            if not line or name == images.groups[i]:
                ax.set_title(textwrap.fill(name, 22), fontsize=6)
    return png(figure)


def against_calls(rows: Sequence[Mapping], changes: Sequence[str]) -> bytes:
    """Draw both AUROCs against network calls, a line for each setting that changes.

    Args:
      rows: of `calls.py`: the first has the settings that all others start from.
      changes: names of those that change, one at a time; where several do, the row is
        a square.
    """
    figure = Figure((8.2, 3.6), dpi=110, layout="constrained")
    questions = "localization", "detection"
    for ax, question in zip(figure.subplots(1, 2), questions, strict=True):
        for i, name in enumerate(changes):
            same = [other for other in changes if other != name]
            line = [r for r in rows if all(r[k] == rows[0][k] for k in same)]
            line = sorted(line, key=lambda row: row["network_calls"])
            found = [row[f"{question}_auroc"] for row in line]
            value, low, high = (
                np.array([f[k] for f in found]) for k in ("value", "low", "high")
            )
            calls = [row["network_calls"] for row in line]
            error = value - low, high - value
            style = dict(color=OTHER, ls=STYLES[i % len(STYLES)], marker=".", lw=1.2)
            ax.errorbar(calls, value, error, label=name, elinewidth=0.5, **style)
        several = [r for r in rows if sum(r[k] != rows[0][k] for k in changes) > 1]
        for row, marker in ((rows[0], "o"), *((row, "s") for row in several)):
            value = row[f"{question}_auroc"]["value"]
            ax.plot(row["network_calls"], value, marker, color=OWN)
        ax.set(
            xscale="log", xlabel="network calls an image", ylabel=f"{question} AUROC"
        )
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=7, title="what changes", title_fontsize=7)
    return png(figure)


def by_level(
    levels: np.ndarray,
    density: np.ndarray,
    is_ood: np.ndarray,
    rows: Sequence[Mapping],
    window: tuple[float, float],
) -> bytes:
    """Draw the KL's density over sigma, a panel a map, and below it both AUROCs.

    Args:
      levels: sigma [K], image units.
      density: nats per unit of ln sigma [N, K, 3], of `kl.MAPS`; drawn are the median
        and the quartiles of the anomalous images, red, and of the others, grey.
      is_ood: which images are anomalous [N], bool.
      rows: of `levels.py`, map by map, both AUROCs of each level alone.
      window: the config's, shaded.
    """
    figure = Figure((8.6, 5.0), dpi=110, layout="constrained")
    axes = figure.subplots(2, len(kl.MAPS), sharex=True, sharey="row")
    for m, (kind, (above, below)) in enumerate(zip(kl.MAPS, axes.T, strict=True)):
        for who, are, color in (
            ("healthy", ~is_ood, OTHER),
            ("anomalous", is_ood, OWN),
        ):
            low, median, high = np.quantile(density[are, :, m], [0.25, 0.5, 0.75], 0)
            above.plot(levels, median, color=color, label=who)
            above.fill_between(levels, low, high, color=color, alpha=0.2, lw=0)
        mine = [row for row in rows if row["map"] == kind]
        for question, style in (("localization", "-"), ("detection", "--")):
            values = [row[question] for row in mine]
            below.plot(levels, values, style, color=OWN, label=question)
        below.axhline(0.5, color=CHANCE, lw=0.8)
        for ax in (above, below):
            ax.axvspan(*window, color=CHANCE, alpha=0.25, lw=0)
            ax.spines[["top", "right"]].set_visible(False)
        above.set(title=kind.replace("_", " "), xscale="log", yscale="symlog")
        below.set(xlabel="sigma")
    axes[0, 0].set(ylabel="KL density, nats per ln sigma")
    axes[1, 0].set(ylabel="AUROC of the level alone")
    for ax in axes[:, 0]:
        ax.legend(frameon=False, fontsize=7)
    return png(figure)


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG."""
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
