"""Reconstruction from partial noise: what the prior does not put back is odd.

    e_s = mean over z of |x - x^_s|^2,   x^_s = the chain from x + s z down to 0.

One level is AnoDDPM, whose map is e_s; many levels with z-scores of each against
in-distribution images (`detectors.base_reconstruction`) are DDPM-OOD. Both take a clean
image, so what comes from measurements is reconstructed first.

Departures: DDIM of few steps, where AnoDDPM runs the ancestral chain and DDPM-OOD a
multistep one (PLMS); Gaussian noise, where AnoDDPM prefers simplex noise, for which the
prior would have to be trained; squared error only, without LPIPS.

Reference: Wyatt et al. 2022 (AnoDDPM); Graham et al. 2023 (DDPM-OOD); docs/theory.md,
section 12.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_fit import fitted
from klip_jax.detectors.base_map import MapDetector
from klip_jax.detectors.base_reconstruction import LevelLaw, reconstruct
from klip_jax.detectors.base_settings import check_count, check_positive
from klip_jax.guidance.none import NoGuidance
from klip_jax.posterior import at_null_label
from klip_jax.types import Denoiser, Detection, Given, Heatmap, Image, PRNGKey, Scalar

LEVELS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Noise levels that reconstructions start from, image units."""


@struct.dataclass
class AnoDDPM(MapDetector):
    """The squared error of the reconstruction from one noise level.

    Attributes:
      sigma: the level to start from, image units.
      steps: of the chain.
      draws: of the noise, averaged over.
    """

    sigma: Scalar = 0.1
    steps: int = struct.field(pytree_node=False, default=10)
    draws: int = struct.field(pytree_node=False, default=1)

    def __post_init__(self):
        super().__post_init__()
        check_positive(sigma=self.sigma)
        check_count(steps=self.steps, draws=self.draws)

    @property
    def network_calls(self) -> int:
        return self.steps * self.draws

    def look(self, key: PRNGKey, given: Given) -> Heatmap:
        """Return the map of squared errors, squared image units."""
        prior, levels = at_null_label(given.prior), jnp.asarray((self.sigma,))
        counts = dict(steps=self.steps, draws=self.draws)
        return errors(key, given.picture, prior, levels, **counts)[0]

    def judge(self, looked: Heatmap) -> Detection:
        return self.of_map(looked)


@struct.dataclass
class DDPMOOD(Detector):
    """The mean z-score of the errors of reconstructions from several noise levels.

    Attributes:
      levels: to start from, image units, in any order.
      steps: of each chain.
      draws: of the noise, averaged over.
      block: side of the blocks that localization counts, pixels.
      law: of each level's error, filled by `fit`.
    """

    levels: tuple[Scalar, ...] = LEVELS
    steps: int = struct.field(pytree_node=False, default=10)
    draws: int = struct.field(pytree_node=False, default=1)
    block: int = struct.field(pytree_node=False, default=4)
    law: LevelLaw | None = None

    fits = True

    def __post_init__(self):
        check_positive(levels=self.levels)
        check_count(steps=self.steps, draws=self.draws, block=self.block)

    @property
    def network_calls(self) -> int:
        return len(self.levels) * self.steps * self.draws

    def look(self, key: PRNGKey, given: Given) -> Float[Array, "level_count h w"]:
        """Return the maps of squared errors, squared image units."""
        prior, levels = at_null_label(given.prior), jnp.asarray(self.levels)
        counts = dict(steps=self.steps, draws=self.draws)
        return errors(key, given.picture, prior, levels, **counts)

    def fit(self, looked: Float[Array, "n level_count h w"]) -> "DDPMOOD":
        return dataclasses.replace(self, law=LevelLaw.of(looked))

    def judge(self, looked: Float[Array, "level_count h w"]) -> Detection:
        """Score the mean over levels and pixels of (e_s - m_s) / d_s."""
        return fitted(self, self.law).detection(looked)


def errors(
    key: PRNGKey,
    x: Image,
    prior: Denoiser,
    levels: Float[Array, " level_count"],
    *,
    steps: int = 10,
    draws: int = 1,
) -> Float[Array, "level_count h w"]:
    """Return the squared error of the reconstruction from each noise level.

    Args:
      key: draw n of level l uses fold_in(fold_in(key, l), n).
      x: image, image units.
      prior: a denoiser.
      levels: noise levels to start from, > 0, image units, in any order.
      steps: of each chain, >= 1.
      draws: of the noise, averaged over, >= 1.

    Returns:
      Maps, squared image units, summed over channels.

    Raises:
      ValueError: if there is no step or no draw.

    Reference: Wyatt et al. 2022, with DDIM for the ancestral chain.
    """
    check_count(draws=draws)

    def at(inputs):
        index, sigma = inputs
        key_level = jax.random.fold_in(key, index)

        def squares(n):
            key_draw = jax.random.fold_in(key_level, n)
            back = reconstruct(
                key_draw, x, prior, sigma, steps=steps, guidance=NoGuidance()
            )
            return jnp.sum((back - x) ** 2, -1)

        return jax.vmap(squares)(jnp.arange(draws)).mean(0)

    return jax.lax.map(at, (jnp.arange(len(levels)), levels))
