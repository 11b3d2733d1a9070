"""Arrays as pictures of 8 bits, and where their peak and their outlines are.

A picture on the page is pixels alone: no text, no frame, no colour. Images are grey or
RGB in the window [0, 1]. Maps are grey too, value over scale; the page colours them by
a filter, so that one picture serves as map and as overlay, on its own scale and on the
shared one.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped
from PIL import Image

LONGEST = 512
"""Pixels of the longer side; larger pictures are shrunk by a whole factor."""

Limits = tuple[float, float]


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


def own_limits(maps: Sequence[Float[np.ndarray, "h w"]]) -> list[Limits]:
    """Return the scale of each map, none finer than the median of all.

    One map in another unit does not blacken the others, and a calm map among others
    stays calm.
    """
    if not maps:
        return []
    signed = color_limits(maps)[0] < 0
    highs = np.array([color_limits([m])[1] for m in maps])
    some = np.array([bool(np.any(np.nan_to_num(m))) for m in maps])
    floor = float(np.median(highs[some])) if some.any() else 1.0
    return [(-h if signed else 0.0, h) for h in np.maximum(highs, floor).tolist()]


def image_picture(image: Float[np.ndarray, "h w c"], longest: int = LONGEST) -> str:
    """Return the PNG of an image in the window [0, 1], in base64.

    Grey, RGB, or the magnitude of other channels; what is not finite is black.
    """
    image = np.nan_to_num(np.asarray(image, np.float64))
    if image.shape[-1] == 1:
        image = image[..., 0]
    elif image.shape[-1] != 3:
        image = np.hypot.reduce(image, -1)
    return _png(shrunk(image, longest))


def map_picture(
    heatmap: Float[np.ndarray, "h w"], limits: Limits, longest: int = LONGEST
) -> str:
    """Return the PNG of a map, black at low and white at high, in base64."""
    low, high = limits
    heatmap = np.nan_to_num(np.asarray(heatmap, np.float64), posinf=high, neginf=low)
    return _png((shrunk(heatmap, longest) - low) / (high - low))


def peak_of(heatmap: Float[np.ndarray, "h w"]) -> tuple[int, int] | None:
    """Return (row, column) of the highest pixel; None of a map without any."""
    finite = np.where(np.isfinite(heatmap), heatmap, -np.inf)
    if not finite.size or finite.max() in (-np.inf, finite.min()):
        return None
    row, column = np.unravel_index(np.argmax(finite), heatmap.shape)
    return int(row), int(column)


def outline_path(mask: Bool[np.ndarray, "h w"]) -> str:
    """Return the edges of the marked pixels as the path of an SVG, in pixels.

    Pixel (r, c) covers x from c to c + 1 and y from r to r + 1.
    """
    padded = np.pad(np.asarray(mask, bool), 1)
    level = padded[1:, 1:-1] != padded[:-1, 1:-1]  # edge [y, c]
    upright = padded[1:-1, 1:] != padded[1:-1, :-1]  # edge [r, x]
    parts = [f"M{x} {y}h{n}" for y, x, n in _runs(level)]
    return "".join(parts + [f"M{x} {y}v{n}" for x, y, n in _runs(upright.T)])


def _runs(edges: Bool[np.ndarray, "k n"]) -> list[list[int]]:
    """Return (line, first, length) of the runs of True along the last axis."""
    steps = np.diff(np.pad(edges.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    line, first = np.nonzero(steps == 1)
    _, after = np.nonzero(steps == -1)
    return np.stack([line, first, after - first], 1).tolist()


def shrunk(image: Shaped[np.ndarray, "h w *c"], longest: int):
    """Return the means of blocks of k x k pixels, so that no side exceeds `longest`."""
    k = -(-max(image.shape[:2]) // longest)
    if k == 1:
        return image
    rest = [(0, -side % k) for side in image.shape[:2]]
    image = np.pad(image, [*rest, *[(0, 0)] * (image.ndim - 2)], mode="edge")
    h, w = (side // k for side in image.shape[:2])
    return image.reshape(h, k, w, k, *image.shape[2:]).mean((1, 3))


def _png(image) -> str:
    pixels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()
