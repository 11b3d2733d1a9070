"""How far draws of a prior are from its exact law, where that is known.

White images: the variance of N(1/2, v I). Two narrow modes in every pixel: the whole
distribution. The last step denoises, D(x, s) at the lowest level s, which shrinks noise
of variance v by v / (v + s^2): that is the law that draws are compared with.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from klip_jax import struct
from klip_jax.config import build
from klip_jax.prior_predictive import prior_draw

SIDE, LOW = 256, 0.01
VARIANCES = 0.001, 0.02, 0.25
MODES, WIDTH = 0.3, 0.05


@struct.dataclass
class White:
    """The denoiser of x0 ~ N(1/2, v I)."""

    variance_of: Any = 0.02

    def __call__(self, x, sigma):
        v = self.variance_of
        return (v * x + sigma**2 / 2) / (v + sigma**2)


@struct.dataclass
class Modes:
    """The denoiser of pixels at 1/2 - a or 1/2 + a, each with a little noise."""

    a: Any = MODES
    width: Any = WIDTH

    def __call__(self, x, sigma):
        v = self.width**2 + sigma**2
        mean = 0.5 + self.a * jnp.tanh(self.a * (x - 0.5) / v)
        return (self.width**2 * x + sigma**2 * mean) / v


def errors(*, sampler, steps: int) -> dict[str, float]:
    """Return the relative errors of the variances, and the KS distance of the modes."""
    method = build("samplers", sampler)

    @jax.jit
    def draw(prior):
        shape, key = (SIDE, SIDE, 1), jax.random.key(1)
        return prior_draw(key, prior, shape, sampler=method, steps=steps)

    differ = {}
    for v in VARIANCES:
        exact = v**2 / (v + LOW**2)
        own = float(np.asarray(draw(White(v)), np.float64).var())
        differ[f"variance {v:g}"] = own / exact - 1
    x = np.asarray(draw(Modes())).ravel() - 0.5
    width = WIDTH**2 / np.hypot(WIDTH, LOW)
    sides = [stats.norm.cdf((np.sort(x) + sign * MODES) / width) for sign in (-1, 1)]
    step = np.arange(1, len(x) + 1) / len(x)
    differ["modes, KS"] = float(np.abs(np.mean(sides, 0) - step).max())
    return differ
