"""KLIP as released: mean squared updates of its DDPM sampler, in its windows.

1. N chains of `release.ddpm`, T of 1000 DDPM timesteps: ancestral steps, each with a
   move of fixed length towards the data, images clipped.
2. Map: mean over a window of steps and over samples of (shift / g)^2, with g^2 the beta
   of the training (`release.scoring`).
3. Score: its largest block.

N T network calls an image, no derivative of the network. The windows and the sizes of
blocks, relative to the image, are those of its four configs; its windows are in steps,
not in noise levels, and lie at others for its other two samplers.

Departures: A is scaled to norm 1, which the release's blur has, so that its zeta keeps
its meaning for any operator; each sample's move is its own, where the release averages
|r| over them; noise is drawn anew in each step, where the release draws it once.

Reference: Kheirandish, Hong and Fridovich-Keil 2026, section 4, as released.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax import kl
from klip_jax.guidance.base import Measured
from klip_jax.operators.base import Operator
from klip_jax.release.ddpm import ddpm, levels, training_g
from klip_jax.release.scoring import klip_reference
from klip_jax.sample import sample
from klip_jax.types import Denoiser, Detection, Reducer

STORED = 100  # steps that the windows count
WINDOWS = ((65, 85), (35, 40))
# Config of the release -> (index into WINDOWS, blocks along a side).
CONFIGS = {
    "chaos_song_image": (0, 16),
    "chaos_song_dataset": (1, 16),
    "chaos_padis_image": (0, 128),
    "celeba_image": (0, 256),
}


class Maps(NamedTuple):
    """What one image yields; the axis of 2 is `WINDOWS`.

    Attributes:
      samples: map of each sample [N, 2, H, W], without unit, summed over channels.
      mean: of the chains' last images [H, W, C], image units.
    """

    samples: Array
    mean: Array


def maps(
    key: Array,
    y: Array,
    operator: Operator,
    prior: Denoiser,
    *,
    samples: int = 8,
    steps: int = STORED,
    zeta: float = 0.3,
) -> Maps:
    """Run the chains of one image and reduce their updates.

    Args:
      key: sample n uses fold_in(key, n).
      y: measurements [operator.out_shape].
      operator: A.
      prior: a denoiser.
      samples: N >= 2.
      steps: T <= 1000 of each chain; with other than 100 the windows are scaled.
      zeta: length of a step's move, see `release.ddpm`.

    Returns:
      A `Maps`.

    Raises:
      ValueError: if there are under 2 samples, or so few steps that a window is empty.
    """
    if samples < 2:
        raise ValueError(f"samples={samples}: a standard error needs at least 2")
    windows = [tuple(round(k * steps / STORED) for k in w) for w in WINDOWS]
    reducer = _both(*(klip_reference(w, training_g()) for w in windows))
    factor = 1 / norm(operator)
    scaled = Scaled(operator, factor)
    likelihood = Measured(scaled, factor * y, jnp.ones((), jnp.float32))
    sampler = ddpm(zeta, clip=True)
    shape = operator.in_shape

    def chain(n):
        key_n = jax.random.fold_in(key, n)
        return sample(key_n, sampler, prior, likelihood, levels(steps), shape, reducer)

    chains = jax.vmap(chain)(jnp.arange(samples))
    return Maps(jnp.stack(chains.reduced, 1), chains.x.mean(0))


def detection(found: Maps, config: str) -> Detection:
    """Reduce the maps of one image as a config of the release does.

    Args:
      found: of `maps`.
      config: one of `CONFIGS`.

    Returns:
      A `Detection` with a jackknife error over samples; without unit.

    Raises:
      ValueError: if there is no such config.
    """
    if config not in CONFIGS:
        raise ValueError(f"config={config!r}: choose one of {sorted(CONFIGS)}")
    window, blocks = CONFIGS[config]
    chosen = found.samples[:, window]
    block = max(1, chosen.shape[-1] // blocks)

    def score(heatmap):
        return kl.top_mean(kl.block_sum(heatmap, block), 0)

    n, total = len(chosen), chosen.sum(0)
    replicates = jax.vmap(lambda own: score((total - own) / (n - 1)))(chosen)
    return Detection(score(total / n), kl.jackknife_stderr(replicates), total / n)


def network_calls(*, samples: int = 8, steps: int = STORED) -> int:
    """Return the network calls an image costs: samples * steps."""
    return samples * steps


class Scaled(Operator):
    """The operator factor * A.

    Args:
      inner: A.
      factor: scalar.
    """

    def __init__(self, inner: Operator, factor: Array):
        self.inner, self.factor = inner, factor
        self.in_shape, self.out_shape = inner.in_shape, inner.out_shape
        self.out_dtype = inner.out_dtype

    def __call__(self, x: Array) -> Array:
        return self.factor * self.inner(x)

    def adjoint(self, y: Array) -> Array:
        return self.inner.adjoint(self.factor * y)


def norm(operator: Operator, iterations: int = 20) -> Array:
    """Return the largest singular value of A by the power method, from below."""

    def step(_, x):
        x = operator.adjoint(operator(x))
        return x / jnp.linalg.norm(x)

    x = jax.random.normal(jax.random.key(0), operator.in_shape)
    x = jax.lax.fori_loop(0, iterations, step, x / jnp.linalg.norm(x))
    return jnp.linalg.norm(operator(x))


def _both(first: Reducer, second: Reducer) -> Reducer:
    return Reducer(
        lambda shape: (first.init(shape), second.init(shape)),
        lambda acc, info: (first.update(acc[0], info), second.update(acc[1], info)),
        lambda acc: (first.finalize(acc[0]), second.finalize(acc[1])),
    )
