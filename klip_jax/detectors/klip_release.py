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

Reference: Kheirandish, Hong and Fridovich-Keil 2026, section 4, as released;
docs/theory.md, section 12.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.blocks import block_sum, top_mean
from klip_jax.detectors.base import Detector, scan_of
from klip_jax.detectors.base_settings import check_count, check_positive
from klip_jax.kl import jackknife_stderr
from klip_jax.posterior import at_null_label
from klip_jax.release.ddpm import DDPM, levels, training_g
from klip_jax.release.scoring import klip_reference
from klip_jax.sample import sample
from klip_jax.types import (
    Denoiser,
    Detection,
    Given,
    Image,
    LinearOperator,
    PRNGKey,
    Reducer,
    Scalar,
    Scan,
)

STORED = 100
"""Steps that the windows count."""
WINDOWS = ((65, 85), (35, 40))
CONFIGS = {
    "chaos_song_image": (0, 16),
    "chaos_song_dataset": (1, 16),
    "chaos_padis_image": (0, 128),
    "celeba_image": (0, 256),
}
"""Config of the release -> (index into `WINDOWS`, blocks along a side)."""


class Maps(NamedTuple):
    """What one image yields; the axis of 2 is `WINDOWS`.

    Attributes:
      samples: map of each sample, without unit, summed over channels.
      mean: of the chains' last images, image units.
    """

    samples: Float[Array, "n 2 h w"]
    mean: Image


@struct.dataclass
class ReleasedKLIP(Detector):
    """One config of the release, with chains of its own.

    Attributes:
      config: one of `CONFIGS`: the window, and the blocks of the score.
      samples: N chains, >= 2.
      steps: T <= 1000 of each; with other than 100 the windows are scaled.
      zeta: length of a step's move, see `release.ddpm`.
      block: side of the blocks that localization counts, pixels.
    """

    config: str = struct.field(pytree_node=False, default="chaos_song_image")
    samples: int = struct.field(pytree_node=False, default=8)
    steps: int = struct.field(pytree_node=False, default=STORED)
    zeta: Scalar = 0.3
    block: int = struct.field(pytree_node=False, default=4)

    needs = ("scan",)

    def __post_init__(self):
        if self.config not in CONFIGS:
            raise ValueError(f"config={self.config!r}: choose one of {sorted(CONFIGS)}")
        check_count(2, samples=self.samples)
        check_count(block=self.block, steps=self.steps)
        check_positive(zeta=self.zeta)

    @property
    def network_calls(self) -> int:
        return self.samples * self.steps

    def look(self, key: PRNGKey, given: Given) -> Maps:
        """Return the maps of all windows, so that any config can judge."""
        prior = at_null_label(given.prior)
        counts = dict(samples=self.samples, steps=self.steps)
        return maps(key, scan_of(given), prior, zeta=self.zeta, **counts)

    def judge(self, looked: Maps) -> Detection:
        """Score the largest block, with a jackknife error over samples; no unit."""
        window, blocks = CONFIGS[self.config]
        chosen = looked.samples[:, window]
        block = max(1, chosen.shape[-1] // blocks)

        def score(heatmap):
            return top_mean(block_sum(heatmap, block), 0)

        n, total = len(chosen), chosen.sum(0)
        replicates = jax.vmap(lambda own: score((total - own) / (n - 1)))(chosen)
        return Detection(score(total / n), jackknife_stderr(replicates), total / n)


def maps(
    key: PRNGKey,
    scan: Scan,
    prior: Denoiser,
    *,
    samples: int = 8,
    steps: int = STORED,
    zeta: Scalar = 0.3,
) -> Maps:
    """Run the chains of one image and reduce their updates.

    Args:
      key: sample n uses fold_in(key, n).
      scan: what was measured; its noise is not used.
      prior: a denoiser.
      samples: N >= 2.
      steps: T <= 1000 of each chain; with other than 100 the windows are scaled.
      zeta: length of a step's move, see `release.ddpm`.

    Returns:
      A `Maps`.

    Raises:
      ValueError: if there are under 2 samples, or so few steps that a window is empty.
    """
    check_count(2, samples=samples)
    first, second = (
        klip_reference(
            (round(k0 * steps / STORED), round(k1 * steps / STORED)), training_g()
        )
        for k0, k1 in WINDOWS
    )
    factor: Any = 1 / norm(scan.operator)
    scaled = Scan(factor * scan.operator, factor * scan.y, 1.0)

    def chain(n):
        given = jax.random.fold_in(key, n), DDPM(zeta, clip=True), prior
        reducer, shape = _both(first, second), scan.operator.in_shape
        return sample(*given, levels(steps), shape, scan=scaled, reducer=reducer)

    chains = jax.vmap(chain)(jnp.arange(samples))
    return Maps(jnp.stack(chains.reduced, 1), chains.x.mean(0))


def norm(operator: LinearOperator, iterations: int = 20) -> Float[Array, ""]:
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
