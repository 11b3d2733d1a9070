"""Densities over noise levels: the mean over the images of each side, and its error."""

import dataclasses

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from klip_jax.report.canvas import BLUE, DPI, INK, QUIET, RED, RULE, label_axes, png
from klip_jax.report.maps import batches, read
from klip_jax.report.table import Table
from klip_jax.run.store import Store

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
    densities = {}
    for side, count in counts.items():
        if count:
            total = totals[side]
            spread = squares[side] - total**2 / count
            error = np.sqrt(np.maximum(spread, 0) / max(count - 1, 1) / count)
            sigma = read(levels, table.index[:1])[0]
            densities[side] = Density(sigma, first[0] + total / count, error, count)
    return densities


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
        label_axes(ax, titles[m], "noise level sigma (image units)", y)
        if not m:
            ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    return png(figure)
