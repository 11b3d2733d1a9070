"""Figures of single images: what was looked at, the main map, the other maps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from klip_jax.report.canvas import DPI, INK, QUIET, png
from klip_jax.report.text import name_of, p_text, plain, plus_minus, where_it_broke

OUTLINE, DARK_OUTLINE = "#00d5c8", "#00897f"
# In inches: a panel's width, about; space between; above, below; bar with numbers.
PANEL, GAP, HEAD, FOOT, BAR = 1.92, 0.07, 0.52, 0.05, 0.64
SMALL_HEAD = 0.24

Limits = tuple[float, float]


class Shown(NamedTuple):
    """What one picture shows.

    Attributes:
      image_id, group, score, stderr, p_value, first_bad_step: of the image.
      images: pictures in [0, 1] by their title; maps are laid over the last one.
      extras: further ones, that the main detector has kept.
      main: name of the main detector.
      heatmaps: by the name of the detector, the main one's first if it has one.
      mask: where the anomaly is, None if nobody knows.
    """

    image_id: str
    group: str
    score: float
    stderr: float
    p_value: float
    first_bad_step: int
    images: dict[str, Float[np.ndarray, "h w c"]]
    extras: dict[str, Float[np.ndarray, "h w c"]]
    main: str
    heatmaps: dict[str, Float[np.ndarray, "h w"]]
    mask: Bool[np.ndarray, "h w"] | None


def color_limits(maps: Sequence[Float[np.ndarray, "h w"]]) -> Limits:
    """Return robust (low, high) for heat maps, one scale for all.

    high is the 99.7th percentile of the magnitudes. low is 0, or -high if the maps are
    signed: a map that estimates a non-negative density without bias is negative as
    often as positive where it is zero.
    """
    parts = [m[np.isfinite(m)] for m in maps]
    values = np.concatenate(parts) if parts else np.zeros(0)
    if not values.size or not values.any():
        return 0.0, 1.0
    high = float(np.quantile(np.abs(values), 0.997)) or float(np.abs(values).max())
    return (-high if np.quantile(values, 0.01) < -0.1 * high else 0.0), high


def image_figure(
    shown: Shown, *, limits: Mapping[str, Limits] | None = None, unit: str = ""
) -> bytes:
    """Draw the images, the main heat map and its overlay; below, the other maps.

    Args:
      shown: of one image.
      limits: colours of each detector's maps, see `color_limits`; None: its own.
      unit: of the main heat map.

    Returns:
      A PNG.
    """
    if limits is None:
        limits = {name: color_limits([m]) for name, m in shown.heatmaps.items()}
    main = shown.heatmaps.get(shown.main)
    others = {n: m for n, m in shown.heatmaps.items() if n != shown.main}
    sides = next(iter([*shown.heatmaps.values(), *shown.images.values()])).shape[:2]
    pictures = shown.images | shown.extras
    panels = len(pictures) + (0 if main is None else 2)
    # Whole screen pixels for a pixel keep edges sharp and the file small.
    zoom = max(1, round(PANEL * DPI / sides[1]))
    wide = zoom * sides[1] / DPI if sides[1] <= 384 else 2 * PANEL
    across = max(panels * (wide + GAP) - GAP + (0 if main is None else BAR), 6.0)
    ratio = sides[0] / sides[1]
    each_row = max(1, int((across + GAP) // (wide / 2 + GAP)))
    rows = -(-len(others) // each_row)
    row_height = wide / 2 * ratio + SMALL_HEAD
    size = across, wide * ratio + HEAD + FOOT + rows * row_height
    figure = Figure(size, dpi=DPI)

    def axes(left, width=wide, title="", bottom=FOOT + rows * row_height, height=None):
        height = wide * ratio if height is None else height
        box = left / size[0], bottom / size[1], width / size[0], height / size[1]
        ax = figure.add_axes(box, xticks=[], yticks=[])
        style = dict(color=QUIET, loc="left", pad=3, parse_math=False)
        ax.set_title(title, fontsize=8, **style)
        ax.spines[:].set_visible(False)
        return ax

    left = 0.0
    for title, image in pictures.items():
        _show(axes(left, title=title), image)
        left += wide + GAP
    if main is not None:
        title = f"{plain(name_of(shown.main), 20)} map"
        look = _look(limits[shown.main])
        picture = axes(left, title=title).imshow(main, **look)
        left += wide + GAP
        extend = "both" if limits[shown.main][0] < 0 else "max"
        bar = figure.colorbar(picture, cax=axes(left, 0.09), extend=extend)
        bar.locator = MaxNLocator(5)
        bar.ax.tick_params(labelsize=7, colors=QUIET, length=2, width=0.6)
        bar.outline.set_visible(False)
        bar.set_label(unit, fontsize=7, color=QUIET, parse_math=False)
        overlay = axes(left + BAR, title="Overlay")
        _overlay(overlay, shown, main, look)
    step = wide / 2 + GAP
    for row in range(rows):
        names = list(others)[row * each_row : (row + 1) * each_row]
        strip, width = _strip([others[n] for n in names], [limits[n] for n in names])
        place = dict(width=width * wide / 2 / sides[1], height=wide / 2 * ratio)
        bottom = FOOT + (rows - 1 - row) * row_height
        axes(0, bottom=bottom, **place).imshow(strip, interpolation="nearest")
        line = (bottom + wide / 2 * ratio + 0.04) / size[1]
        for i, name in enumerate(names):
            title = plain(name_of(name), max(8, int(wide * 9)))
            style: Any = dict(fontsize=7, color=QUIET, parse_math=False)
            figure.text(i * step / size[0], line, title, **style)
    _heading(figure, size, shown)
    return png(figure)


def _look(limits):
    colors = "RdBu_r" if limits[0] < 0 else "inferno"
    return dict(vmin=limits[0], vmax=limits[1], cmap=colors, interpolation="nearest")


def _strip(maps, limits):
    """Return maps beside each other as colours [H, W', 4], and W': one image is quick.

    Between them is GAP, in pixels of maps that are half as wide as a panel.
    """
    height, width = maps[0].shape
    gap = np.ones((height, max(1, round(2 * GAP / PANEL * width)), 4))
    parts = []
    for heatmap, (low, high) in zip(maps, limits, strict=True):
        colors = matplotlib.colormaps[_look((low, high))["cmap"]]
        parts += [gap, colors((heatmap - low) / (high - low))]
    strip = np.concatenate(parts[1:], 1)
    return strip, strip.shape[1]


def _overlay(ax, shown, heatmap, look):
    base = list(shown.images.values())[-1:]
    if base:
        _show(ax, base[0])
    opacity = np.clip(np.abs(np.nan_to_num(heatmap)) / look["vmax"], 0, 1) * 0.9
    ax.imshow(heatmap, alpha=opacity, **look)
    if shown.mask is None or not shown.mask.any():
        return
    mask = np.pad(shown.mask, 1)
    rows, columns = (np.arange(-1, side - 1) for side in mask.shape)
    outline = columns, rows, mask, [0.5]
    ax.contour(*outline, colors=["black"], linewidths=2.2, alpha=0.6)
    ax.contour(*outline, colors=[OUTLINE], linewidths=1.1)
    ax.set(xlim=(-0.5, mask.shape[1] - 2.5), ylim=(mask.shape[0] - 2.5, -0.5))
    ax.set_title("true outline", fontsize=8, color=DARK_OUTLINE, loc="right", pad=3)


def _heading(figure, size, shown):
    line = 1 - 0.16 / size[1]
    style = dict(fontsize=9.5, color=INK, va="center", parse_math=False)
    name = f"{plain(shown.image_id)}    {plain(shown.group)}"
    figure.text(0, line, name, weight="bold", **style)
    score = f"score {plus_minus(shown.score, shown.stderr)}"
    if np.isfinite(shown.p_value):
        score += f"    p {p_text(shown.p_value)}"
    if broke := where_it_broke(shown.score, shown.first_bad_step):
        score += f"    {broke}"
    figure.text(1, line, score, ha="right", **style)


def _show(ax, image):
    """Show [H, W, C] in the window [0, 1]: grey, RGB, or the magnitude of channels."""
    if image.shape[-1] == 3:
        ax.imshow(np.clip(np.nan_to_num(image), 0, 1), interpolation="nearest")
    else:
        grey = image[..., 0] if image.shape[-1] == 1 else np.hypot.reduce(image, -1)
        ax.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
