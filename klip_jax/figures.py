"""Pictures of a run as PNG bytes; matplotlib figures of their own, no global state."""

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FormatStrFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)
from PIL import Image
from sklearn.metrics import roc_curve

from klip_jax.metrics import auroc
from klip_jax.results import ImageResult, natural, score_controls

INK, QUIET, RULE = "#1c2733", "#6b7785", "#c9d0d8"
BLUE, RED = "#2b6c9f", "#c0392b"
GROUPS = (RED, "#d98a00", "#7b4fa3", "#2e8b57", "#8a5a3c", "#c2508c")
OUTLINE, DARK_OUTLINE = "#00d5c8", "#00897f"
MAPS = ("guided", "coherent", "coherent guided")
DPI = 100
# In inches: a panel's width, about; space between; above, below; bar with numbers.
PANEL, GAP, HEAD, FOOT, BAR = 1.92, 0.07, 0.52, 0.05, 0.64


def color_limits(results: Sequence[ImageResult]) -> tuple[float, float]:
    """Return robust (low, high) for the heat maps of `results`, one scale for all.

    high is the 99.7th percentile of the magnitudes. low is 0, or -high if the maps are
    signed: a coherent map estimates a non-negative density without bias, so where it is
    zero the estimate is negative as often as positive.
    """
    maps = [r.arrays["heatmap"].ravel() for r in results]
    values = np.concatenate([m[np.isfinite(m)] for m in maps])
    if not values.size or not values.any():
        return 0.0, 1.0
    high = float(np.quantile(np.abs(values), 0.997)) or float(np.abs(values).max())
    return (-high if np.quantile(values, 0.01) < -0.1 * high else 0.0), high


def image_figure(
    result: ImageResult,
    *,
    limits: tuple[float, float] | None = None,
    unit: str = "score per pixel",
) -> bytes:
    """Draw one row: truth, naive inversion, reconstruction, heat map, overlay.

    Args:
      result: of one image; without `truth` that panel is left out.
      limits: (low, high) of the colours, see `color_limits`; None: the image's own.
      unit: of the heat map.

    Returns:
      A PNG.
    """
    low, high = color_limits([result]) if limits is None else limits
    colors, extend = ("RdBu_r", "both") if low < 0 else ("inferno", "max")
    look = dict(vmin=low, vmax=high, cmap=colors, interpolation="nearest")
    arrays, heatmap = result.arrays, result.arrays["heatmap"]
    titles = {"truth": "Truth", "naive": "Naive inversion", "mean": "Reconstruction"}
    titles = {name: title for name, title in titles.items() if name in arrays}
    panels = len(titles) + 2
    # Whole screen pixels for a pixel keep edges sharp and the file small.
    zoom = max(1, round(PANEL * DPI / heatmap.shape[1]))
    wide = zoom * heatmap.shape[1] / DPI if heatmap.shape[1] <= 384 else 2 * PANEL
    tall = wide * heatmap.shape[0] / heatmap.shape[1]
    size = panels * (wide + GAP) - GAP + BAR, tall + HEAD + FOOT
    figure = Figure(size, dpi=DPI)

    def axes(left, width=wide, title=""):
        box = left / size[0], FOOT / size[1], width / size[0], tall / size[1]
        ax = figure.add_axes(box, xticks=[], yticks=[])
        ax.set_title(title, fontsize=8, color=QUIET, loc="left", pad=3)
        ax.spines[:].set_visible(False)
        return ax

    left = 0
    for name, title in titles.items():
        _show(axes(left, title=title), arrays[name])
        left += wide + GAP
    shown = axes(left, title="KLIP map").imshow(heatmap, **look)
    left += wide + GAP
    bar = figure.colorbar(shown, cax=axes(left, 0.09), extend=extend)
    bar.locator = MaxNLocator(5)
    bar.ax.tick_params(labelsize=7, colors=QUIET, length=2, width=0.6)
    bar.outline.set_visible(False)
    bar.set_label(unit, fontsize=7, color=QUIET)
    overlay = axes(left + BAR, title="Overlay")
    _show(overlay, arrays["mean"])
    opacity = np.clip(np.abs(np.nan_to_num(heatmap)) / high, 0, 1) * 0.9
    overlay.imshow(heatmap, alpha=opacity, **look)
    if "mask" in arrays and arrays["mask"].any():
        mask = np.pad(arrays["mask"], 1)
        rows, columns = (np.arange(-1, side - 1) for side in mask.shape)
        overlay.contour(
            columns, rows, mask, [0.5], colors=["black"], linewidths=2.2, alpha=0.6
        )
        overlay.contour(columns, rows, mask, [0.5], colors=[OUTLINE], linewidths=1.1)
        overlay.set(xlim=(-0.5, mask.shape[1] - 2.5), ylim=(mask.shape[0] - 2.5, -0.5))
        title = "true outline"
        overlay.set_title(title, fontsize=8, color=DARK_OUTLINE, loc="right", pad=3)
    _heading(figure, size, result)
    return _png(figure)


def roc_figure(results: Sequence[ImageResult]) -> bytes:
    """Draw the detection ROC beside those of the controls, and the scores by group.

    Args:
      results: with "id" and at least one anomalous group among their groups.

    Raises:
      ValueError: if one side is missing.
    """
    known = [r for r in results if r.group and np.isfinite(r.score)]
    is_ood = np.array([r.group != "id" for r in known], bool)
    if not is_ood.any() or is_ood.all():
        raise ValueError("the ROC needs images of group 'id' and of another group")
    figure = Figure((10.6, 3.9), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.35])
    _draw_roc(left, known, is_ood)
    _draw_scores(right, known)
    return _png(figure)


def density_figure(results: Sequence[ImageResult]) -> bytes:
    """Draw KL density against sigma, mean +- standard error over images, by map.

    The integral over ln sigma is the KL of the whole image. Blue is in-distribution,
    red anomalous, grey unknown.
    """
    figure = Figure((10.6, 3.1), dpi=DPI, layout="constrained")
    good = [r for r in results if np.isfinite(r.arrays["blocks"]).all()]
    sides = {
        ("in-distribution", BLUE): [r for r in good if r.group == "id"],
        ("anomalous", RED): [r for r in good if r.group not in ("", "id")],
        ("images", QUIET): [r for r in good if not r.group],
    }
    for m, ax in enumerate(figure.subplots(1, 3)):
        for (label, color), images in sides.items():
            if not images:
                continue
            sigma = images[0].arrays["levels"]
            density = np.array([r.arrays["blocks"][:, m].sum((1, 2)) for r in images])
            mean, style = density.mean(0), dict(color=color)
            ax.plot(
                sigma,
                mean,
                "o-",
                ms=3,
                lw=1.4,
                label=f"{label} ({len(images)})",
                **style,
            )
            if len(images) > 1:
                error = density.std(0, ddof=1) / np.sqrt(len(images))
                ax.fill_between(
                    sigma, mean - error, mean + error, alpha=0.2, lw=0, **style
                )
        ax.axhline(0, color=RULE, lw=0.8, zorder=0)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.xaxis.set_minor_locator(NullLocator())
        _label(ax, MAPS[m], "noise level sigma (image units)", "score per ln sigma")
        if m:
            ax.set_ylabel("")
        elif good:
            ax.legend(frameon=False, fontsize=8, labelcolor=INK)
    return _png(figure)


def plus_minus(value: float, error: float) -> str:
    """Return "12.30 +- 0.45": two digits of the error, the value to the same place."""
    if not np.isfinite(value) or not np.isfinite(error) or not 0 < error < 1e6:
        return f"{value:.3g}"
    places = min(6, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:.{places}f} \N{PLUS-MINUS SIGN} {error:.{places}f}"


def p_text(p: float) -> str:
    """Return "= 0.036" or "< 0.001"."""
    return f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def _draw_roc(ax, known, is_ood):
    scores = {"KLIP": np.array([r.score for r in known])}
    for name in score_controls(known[0]):
        scores[name] = np.array([score_controls(r).get(name, np.nan) for r in known])
    scores = {name: v for name, v in scores.items() if np.isfinite(v).all()}
    area = {name: auroc(v, is_ood) for name, v in scores.items()}
    best = max((n for n in area if n != "KLIP"), key=area.get, default=None)
    ax.plot([0, 1], [0, 1], color=RULE, lw=0.8)
    others = "other controls"
    for name in sorted(scores, key=lambda n: (n == "KLIP", n == best)):
        fpr, tpr, _ = roc_curve(is_ood, scores[name])
        label = f"{_plain(name)}  {area[name]:.2f}"
        if name == "KLIP":
            style = dict(color=RED, lw=2, label=label)
        elif name == best:
            style = dict(color=INK, lw=1.2, ls="--", label=f"{label} (best control)")
        else:
            style = dict(color="#aab4be", lw=0.8, label=others)
            others = None
        ax.plot(fpr, tpr, **style)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    _label(
        ax, "Detection between images", "in-distribution flagged", "anomalous flagged"
    )
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="lower right")


def _draw_scores(ax, known):
    groups = ["id", *sorted({r.group for r in known} - {"id"}, key=natural)]
    for row, group in enumerate(groups):
        images = sorted((r for r in known if r.group == group), key=lambda r: r.score)
        color = BLUE if group == "id" else GROUPS[(row - 1) % len(GROUPS)]
        place = row + 0.6 * (np.arange(len(images)) + 0.5) / len(images) - 0.3
        score, error = (
            np.array([getattr(r, k) for r in images]) for k in ("score", "stderr")
        )
        ax.errorbar(
            score, place, xerr=np.nan_to_num(error), fmt="o", ms=3, lw=0.7, color=color
        )
    ax.set_yticks(range(len(groups)), [_plain(g, 18) for g in groups], parse_math=False)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    _label(ax, "Scores, with their Monte Carlo error", "score", "")


def _label(ax, title, x, y):
    ax.set_title(title, fontsize=9, color=INK, loc="left")
    ax.set_xlabel(x, fontsize=8, color=QUIET)
    ax.set_ylabel(y, fontsize=8, color=QUIET)
    ax.tick_params(labelsize=8, colors=QUIET, length=3, width=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(color=RULE)


def _heading(figure, size, result):
    line = 1 - 0.16 / size[1]
    style = dict(fontsize=9.5, color=INK, va="center", parse_math=False)
    name = f"{_plain(result.image_id)}    {_plain(result.group)}"
    figure.text(0, line, name, weight="bold", **style)
    score = f"score {plus_minus(result.score, result.stderr)}"
    if np.isfinite(result.p_value):
        score += f"    p {p_text(result.p_value)}"
    if result.first_bad_step >= 0:
        score += f"    not finite from step {result.first_bad_step}"
    figure.text(1, line, score, ha="right", **style)


def _show(ax, image):
    """Show [H, W, C] in the window [0, 1]: grey, RGB, or the magnitude of channels."""
    if image.shape[-1] == 3:
        ax.imshow(np.clip(np.nan_to_num(image), 0, 1), interpolation="nearest")
    else:
        grey = image[..., 0] if image.shape[-1] == 1 else np.hypot.reduce(image, -1)
        ax.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _plain(text, longest=40):
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _png(figure):
    """Return the figure as a PNG of 256 colours, a third of the bytes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    # Median cut, the default, would mute the few pixels of an outline.
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    file = io.BytesIO()
    image.quantize(256, method=method, kmeans=1, dither=dither).save(file, "png")
    return file.getvalue()
