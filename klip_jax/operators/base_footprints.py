"""Shadows of square pixels on a detector: the weights of a strip-area projector.

    weight[d] = scale * (trapezoid of unit area, integrated over bin d)

A unit square whose sides make the angle t with the detector projects to the convolution
of boxes of widths |cos t| and |sin t| (Long, Fessler and Balter 2010, section III); a
strip's area is the difference of its integral between the strip's edges (Lo 1988).
Lengths here are in bins, and `scale` is the size of a pixel's side on the detector.

`weights` follows the arrays it is given: numpy builds matrices in float64, jax computes
weights inside a compiled projector.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

THIN = 1e-6  # narrowest side of a trapezoid, in pixels: a box must keep a slope


def most_taps(scale: float) -> int:
    """Return how many bins a pixel of side `scale` bins can touch."""
    return int(np.sqrt(2) * scale) + 2


def first_bins(centre, cos, sin, scale, *, taps: int, detectors: int):
    """Return the first bin that each pixel touches, integers [H, W].

    Bins are counted from `taps` before the detector, so that every pixel has `taps`
    bins: what falls outside the detector lands in margins that are cut off later.

    Args:
      centre: where the centres of the pixels land [H, W], bins from the detector's
        first edge.
      cos, sin: of the angle between pixels and detector, broadcast against `centre`.
      scale: side of a pixel on the detector, bins, broadcast against `centre`.
      taps: number of bins for each pixel, at least `most_taps(scale)`.
      detectors: number of bins.
    """
    narrow, wide = _widths(cos, sin, scale)
    first = np.floor(centre - (narrow + wide) / 2) + taps
    small = np.int16 if detectors + taps < 2**15 else np.int32
    return np.clip(first, 0, detectors + taps).astype(small)


def weights(first, centre, cos, sin, scale, *, taps: int) -> list:
    """Return the weights of `taps` bins [H, W], whose sum is `scale`.

    They are continuous in the position, so that rounding it does not matter as long as
    the bins are given: two compiled kernels that each computed them could round to
    different sides of an edge, and one would say which bin, the other how much.

    Args:
      first: what `first_bins` returns [H, W].
      centre, cos, sin, scale, taps: as there.
    """
    narrow, wide = _widths(cos, sin, scale)
    start = first - (centre - (narrow + wide) / 2 + taps)
    below = [scale * _area_below(start + j, wide, narrow) for j in range(1, taps)]
    return [b - a for a, b in zip([0, *below], [*below, scale], strict=True)]


def dense(shadows: Iterable, views: int, detectors: int, pixels: int) -> np.ndarray:
    """Write the shadows of each view into a matrix [views, detectors, pixels]."""
    matrix = np.zeros((views, detectors, pixels))
    for view, (first, parts) in zip(matrix, shadows, strict=True):
        margin = len(parts)
        padded = np.zeros((detectors + 2 * margin, pixels))
        for tap, weight in enumerate(parts):
            padded[first.ravel() + tap, np.arange(pixels)] += weight.ravel()
        view[:] = padded[margin : margin + detectors]
    return matrix


def project(
    x: Array, views: Any, shadows: Callable, *, taps: int, detectors: int
) -> Array:
    """Add the pixels of `x` [H, W] into their bins; returns [views, detectors].

    Args:
      x: image [H, W].
      views: arrays [views, ...], one view of which `shadows` takes.
      shadows: from a view to (first bins, weights); the weights may be one array.
      taps, detectors: those of `first_bins`.
    """

    @jax.checkpoint  # a gradient computes weights again, it does not keep all views
    def one(view):
        first, parts = shadows(view)
        first = first.astype(jnp.int32)
        parts = jax.tree.map(lambda w: w.astype(x.dtype) * x, parts)
        bins = jnp.zeros(detectors + 2 * taps, x.dtype)
        # A scatter a tap and a view at a time: on CPU three times faster than one.
        for tap in range(taps):
            bins = bins.at[first + tap].add(parts[tap], mode="promise_in_bounds")
        return bins

    return lax.map(one, views)[:, taps : taps + detectors]


def back_project(
    y: Array, views: Any, shadows: Callable, shape: tuple[int, int], *, taps: int
) -> Array:
    """Apply the transpose of `project` to `y` [views, detectors]; returns `shape`.

    Written as a gather: twice as fast on CPU as the automatic transpose.
    """

    def one(x, view):
        row, view = view
        first, parts = shadows(view)
        first = first.astype(jnp.int32)
        for tap in range(taps):
            seen = row.at[first + tap].get(mode="promise_in_bounds")
            x = x + parts[tap].astype(y.dtype) * seen
        return x, None

    padded = jnp.pad(y, ((0, 0), (taps, taps)))
    return lax.scan(one, jnp.zeros(shape, y.dtype), (padded, views))[0]


def _widths(cos, sin, scale):
    xp = jnp if isinstance(scale * cos, Array) else np
    narrow, wide = xp.minimum(abs(cos), abs(sin)), xp.maximum(abs(cos), abs(sin))
    return scale * xp.maximum(narrow, THIN), scale * wide


def _area_below(t, wide, narrow):
    """Integrate box(wide) convolved with box(narrow), of unit area, up to its edge + t.

    By its smaller tail: a difference of two large areas would not survive float32.
    """
    xp = jnp if isinstance(t, Array) else np
    whole = wide + narrow
    m = xp.maximum(xp.minimum(t, whole - t), 0.0)
    tail = xp.where(m < narrow, m * m / (2 * narrow), m - narrow / 2) / wide
    return xp.where(t > whole / 2, 1.0 - tail, tail)
