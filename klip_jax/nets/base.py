"""Layers that the score networks of others share; one image [H, W, C] a call.

Every normalisation is over all pixels of the image. A resampling filter f of L taps
(L even, sum f = 1) acts along rows and columns alike:

    down: y[j] = sum_k f[k] x[2 j + k - p],      up: y[j] = 2 sum_i f[j + p - 2 i] x[i],

with p = (L - 1) // 2 and zeros outside the image; (1, 1) is the mean of 2x2 pixels and
the nearest neighbour.

Reference: Karras et al. 2020, appendix B (filters); Vaswani et al. 2017, section 3.2.1
(attention) and 3.5 (sinusoids); Tancik et al. 2020, section 6.1 (Fourier features).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def group_norm(x: Array, *, groups: int = 0, epsilon: float = 1e-6, name=None) -> Array:
    """Normalise `x` [H, W, C]; call it in a compact module.

    Args:
      x: image [H, W, C].
      groups: of channels; 0 gives four channels to a group, in at most 32 groups.
      epsilon: added to the variance.
      name: of the layer; None numbers it.
    """
    groups = groups or min(x.shape[-1] // 4, 32)
    # Flax takes the first axis for a batch unless it is told.
    return nn.GroupNorm(
        groups,
        epsilon=epsilon,
        reduction_axes=(-3, -2, -1),
        use_fast_variance=False,
        name=name,
    )(x)


def attend(q: Array, k: Array, v: Array, *, heads: int = 1) -> Array:
    """Return softmax(q k^T / sqrt(C / heads)) v over pixels, [H, W, C].

    Args:
      q, k, v: [H, W, C]; the channels of one head are neighbours.
      heads: must divide C.
    """
    height, width, c = q.shape
    q, k, v = (a.reshape(height * width, heads, c // heads) for a in (q, k, v))
    logits = jnp.einsum("qhc,khc->hqk", q, k) / (c // heads) ** 0.5
    attended = jnp.einsum("hqk,khc->qhc", jax.nn.softmax(logits), v)
    return attended.reshape(height, width, c)


def fir_down(x: Array, taps: Sequence[float], *, pad: bool = True) -> Array:
    """Filter [H, W, C] and keep every second pixel: [H / 2, W / 2, C].

    Args:
      x: image [H, W, C].
      taps: of the filter, of any sum.
      pad: False where `x` already has the p pixels more on each side.
    """
    taps = _normalised(taps)
    margin = (len(taps) - 1) // 2
    for axis in (0, 1):
        x = _down(_padded(x, margin, margin, axis) if pad else x, taps, axis)
    return x


def fir_up(x: Array, taps: Sequence[float]) -> Array:
    """Put zeros between the pixels of [H, W, C] and filter: [2 H, 2 W, C]."""
    for axis in (0, 1):
        x = _up(x, _normalised(taps), axis)
    return x


def sinusoids(level: Array, features: int, *, freq_shift: int = 1) -> Array:
    """Return [sin(level w), cos(level w)], w_i = 10000^(-i / (features/2 - shift)).

    Args:
      level: a timestep or noise level, scalar.
      features: length of the result, even.
      freq_shift: 1 where the last frequency is 1/10000, 0 where it is just above.
    """
    half = features // 2
    frequencies = 10000.0 ** (-np.arange(half) / (half - freq_shift))
    return _waves(level * jnp.asarray(frequencies, level.dtype))


def fourier_features(level: Array, frequencies: Array) -> Array:
    """Return [sin(2 pi f level), cos(2 pi f level)] for `frequencies` f [F], [2 F]."""
    return _waves(level * (2 * np.pi * frequencies))


def check_divides(x: Array, levels: int) -> None:
    """Raise a ValueError unless both sides of `x` can be halved levels - 1 times."""
    grid = 2 ** (levels - 1)
    if x.shape[0] % grid or x.shape[1] % grid:
        raise ValueError(
            f"a {x.shape[0]}x{x.shape[1]} image does not divide into this network's "
            f"grids: both sides must be multiples of {grid}"
        )


def _waves(angles):
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


def _normalised(taps):
    if len(taps) % 2:
        raise ValueError(f"filter {tuple(taps)}: must have an even number of taps")
    return [float(tap) / sum(taps) for tap in taps]


def _down(x, taps, axis):
    n = x.shape[axis] - 2 * ((len(taps) - 1) // 2)
    return sum(
        tap * jax.lax.slice_in_dim(x, k, k + n - 1, stride=2, axis=axis)
        for k, tap in enumerate(taps)
    )


def _up(x, taps, axis):
    n, pad, most = x.shape[axis], (len(taps) - 1) // 2, len(taps) // 2
    x_padded = _padded(x, most, most, axis)

    def phase(parity):
        # Only every second tap meets a pixel; the others meet the zeros.
        return sum(
            2 * tap * jax.lax.slice_in_dim(x_padded, start, start + n, axis=axis)
            for k, tap in enumerate(taps)
            if (k - pad - parity) % 2 == 0
            for start in [most - (k - pad - parity) // 2]
        )

    shape = list(x.shape)
    shape[axis] = 2 * n
    return jnp.stack([phase(0), phase(1)], axis + 1).reshape(shape)


def _padded(x, before, after, axis):
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    return jnp.pad(x, widths)
