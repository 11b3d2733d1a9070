"""Densities over noise levels: the mean over the images of each side, and its error."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from klip_jax.report.charts import Chart
from klip_jax.report.maps import batches, read
from klip_jax.report.table import Table
from klip_jax.report.text import KINDS
from klip_jax.run.store import Store


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


def density_charts(
    densities: dict[str, Density], titles: list[str]
) -> list[dict[str, Any]]:
    """Draw densities against sigma, mean +- standard error over images.

    Args:
      densities: what `read_density` returns.
      titles: of the curves.

    Returns:
      {"title", "chart"} of each.
    """
    count = next(iter(densities.values())).mean.shape[1]
    if len(titles) != count:
        titles = [f"curve {m + 1}" for m in range(count)]
    charts = []
    for m, title in enumerate(titles):
        ends = [
            d.mean[:, m] + sign * d.error[:, m]
            for d in densities.values()
            for sign in (-1, 1)
        ]
        low, high = min(0.0, np.min(ends)), max(0.0, np.max(ends))
        sigma = next(iter(densities.values())).sigma
        chart = Chart(
            (float(sigma.min()) / 1.05, float(sigma.max()) * 1.05),
            (low, high + 0.05 * (high - low) or 1.0),
            "noise level sigma (image units)",
            "score per ln sigma",
            (340, 220),
            log_x=True,
        )
        marks = []
        for side, density in densities.items():
            mean, error = density.mean[:, m], density.error[:, m]
            if density.count > 1:
                band = density.sigma, mean - error, mean + error
                marks.append(chart.band(*band, f"band {KINDS[side]}"))
            marks.append(chart.line(density.sigma, mean, f"line {KINDS[side]}"))
            marks.append(chart.dots(density.sigma, mean, KINDS[side]))
        about = f"{title}: mean score per ln sigma against the noise level"
        charts.append({"title": title, "chart": chart.drawn(marks, about)})
    return charts
