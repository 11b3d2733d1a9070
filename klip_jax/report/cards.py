"""The cards of the page, one an image: its badge, its numbers, its pictures."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from klip_jax.calibration import LAWS
from klip_jax.data.base import ImageSet
from klip_jax.data.base_geometry import Fit
from klip_jax.report import pixels, text
from klip_jax.report.p_values import BADGES, Judged
from klip_jax.report.pictures import SMALL, Shown
from klip_jax.report.table import Table

RADIUS = 0.085
"""Of the circle around the peak, over the shorter side."""


def cards(
    table: Table,
    judged: Judged,
    shown: dict[int, Shown],
    anchors: dict[int, str],
    images: ImageSet | None = None,
) -> list[dict[str, Any]]:
    """Return the fields of the cards, in the order of `shown`.

    Args:
      table, judged: of the run.
      shown: arrays by row of the table.
      anchors: names of the places on the page, by row.
      images: the data, which may know millimetres and the size of the input.
    """
    scales = _scales(list(shown.values()))
    spacing = None if images is None else images.spacing
    fits = None if images is None else images.fits
    return [
        {
            "anchor": anchors[i],
            "peak_text": peak_text(
                each.peak, spacing, None if fits is None else fits[table.index[i]]
            ),
        }
        | _numbers(table, judged, i)
        | _pictures(each, {n: s[place] for n, s in scales.items()}, table.main)
        for place, (i, each) in enumerate(shown.items())
    ]


def peak_text(
    peak: tuple[int, int] | None,
    spacing: tuple[float, float] | None,
    fit: Fit | None = None,
) -> str:
    """Return "row 37, column 20 (18.8 mm down, 10.2 mm across)", "" without a peak.

    Args:
      peak: (row, column) of the image, from 0.
      spacing: mm from pixel to pixel of the image, down and across.
      fit: of the input to the image; then it is the input's pixel that is told.

    Returns:
      A phrase; millimetres are those of the pixel's middle from the upper left corner.
    """
    if peak is None:
        return ""
    place: tuple[float, ...] = peak
    said, of = "row {:.0f}, column {:.0f}", ""
    if fit is not None:
        place, of = fit.pixel(*peak), " of the input"
        if spacing is not None:
            sides = zip(spacing, fit.resized, fit.box[2:], strict=True)
            down, across = (mm * new / old for mm, new, old in sides)
            spacing = down, across
    said = said.format(*place) + of
    if spacing is None:
        return said
    down, across = ((p + 0.5) * mm for p, mm in zip(place, spacing, strict=True))
    return f"{said} ({down:.1f} mm down, {across:.1f} mm across)"


def _scales(shown: Sequence[Shown]) -> dict[str, list[dict[str, Any] | None]]:
    """Return the scales of every detector's maps, an entry an image: own and shared."""
    scales: dict[str, list[dict[str, Any] | None]] = {}
    for name in dict.fromkeys(name for each in shown for name in each.heatmaps):
        there = [each.heatmaps[name] for each in shown if name in each.heatmaps]
        low, high = pixels.color_limits(there)
        own = iter(pixels.own_limits(there))
        scales[name] = [None] * len(shown)
        for place, each in enumerate(shown):
            if name in each.heatmaps:
                limits = next(own)
                scales[name][place] = {
                    "limits": limits,
                    "signed": low < 0,
                    "ratio": f"{limits[1] / high:.4g}",
                    "own": [f"{end:.2g}" for end in limits],
                    "shared": [f"{end:.2g}" for end in (low, high)],
                }
    return scales


def _numbers(table: Table, judged: Judged, i: int) -> dict[str, Any]:
    columns = table.columns[table.main]
    badge = str(judged.badges[i])
    return {
        "id": str(table.ids[i]),
        "name": text.plain(str(table.ids[i]), 80),
        "group": text.plain(str(table.groups[i]), 40),
        "badge": badge,
        "badge_text": BADGES[badge],
        "misfits": bool(judged.misfit[i]),
        "score": text.plus_minus(columns["score"][i], columns["stderr"][i]),
        "broke": text.where_it_broke(columns["score"][i], int(table.first_bad_step[i])),
        "misfit": f"{table.misfit[i]:.2f}" if np.isfinite(table.misfit[i]) else "",
        "p": [
            {"law": words, "value": text.p_text(columns[law][i]).removeprefix("= ")}
            for law, words in LAWS.items()
            if np.isfinite(columns[law][i])
        ],
    }


def _pictures(each: Shown, scales: dict[str, Any], main: str) -> dict[str, Any]:
    rows, columns = each.shape
    panes = [
        {"kind": "image", "title": title, "png": pixels.image_picture(image)}
        for title, image in (each.images | each.extras).items()
    ]
    base = panes[len(each.images) - 1]["png"] if each.images else ""
    maps = {
        name: {
            "name": text.name_of(name),
            "png": pixels.map_picture(heatmap, scales[name]["limits"]),
            **scales[name],
        }
        for name, heatmap in each.heatmaps.items()
    }
    others = [drawn for name, drawn in maps.items() if name != main]
    truth = None if each.truth is None else pixels.image_picture(each.truth)
    circle = None
    if each.peak is not None:
        radius = max(3.0, RADIUS * min(rows, columns))
        circle = {"x": each.peak[1] + 0.5, "y": each.peak[0] + 0.5, "r": f"{radius:g}"}
    return {
        "rows": rows,
        "columns": columns,
        "small": max(rows, columns) <= 2 * SMALL,
        "panes": panes,
        "base": base,
        "map": maps.get(main),
        "others": others,
        "truth": truth,
        "circle": circle,
        "outline": each.outline,
    }
