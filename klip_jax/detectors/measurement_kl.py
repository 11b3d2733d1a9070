"""KL between two priors, at the picture that measurements make.

    KL(p || q) = 1/2 int E |score_p - score_q|^2 d(s^2) = int E |D_p - D_q|^2 / s^3 ds,

at x~ + s z, x~ a quick inversion of y. Where p is the prior and q a broader one (of
natural images, or of many organs), what p would take away and q would keep is odd.

Departures: the paper's two networks are trained on pictures A^T y of the measurement;
here they are priors over images, so that artefacts of the inversion count too, in both.
It compares sets of images; a score and a map of one image are ours. The outer half of
the integral, above the highest level, is left out.

Reference: Shoushtari et al. 2025, arXiv 2505.11482; Kong et al. 2023 (the identity);
docs/theory.md, section 12.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base import scan_of
from klip_jax.detectors.base_map import MapDetector
from klip_jax.detectors.base_settings import check_count, check_increasing
from klip_jax.kl import trapezoid
from klip_jax.posterior import at_null_label
from klip_jax.types import (
    Denoiser,
    Detection,
    Given,
    Heatmap,
    Image,
    PRNGKey,
    Scalar,
)


@struct.dataclass
class MeasurementKL(MapDetector):
    """The disagreement of two denoisers on the quick picture of the measurements.

    Attributes:
      other: the second prior, q; without one there is nothing to compare with.
      levels: noise levels, > 0, increasing, at least 2, image units.
      draws: of the noise, averaged over.

    Raises:
      ValueError: naming the first setting that cannot work.
    """

    other: Any = None
    levels: tuple[Scalar, ...] = (0.05, 0.1, 0.2, 0.4, 0.8)
    draws: int = struct.field(pytree_node=False, default=1)

    unit = "nats"
    needs = ("scan",)

    def __post_init__(self):
        super().__post_init__()
        check_increasing(levels=self.levels)
        check_count(draws=self.draws)
        if len(self.levels) < 2:
            raise ValueError(f"levels={self.levels}: the integral needs at least 2")

    @property
    def network_calls(self) -> int:
        """Calls of the prior; the other prior takes as many."""
        return len(self.levels) * self.draws

    def look(self, key: PRNGKey, given: Given) -> Heatmap:
        """Return the integrated map, nats; level k uses fold_in(key, k).

        Raises:
          ValueError: if there is no second prior.
        """
        if self.other is None:
            raise ValueError(
                "MeasurementKL compares two priors: build it with other=..., a prior "
                "of broader images (klip_jax.hub loads one); a config cannot name it"
            )
        operator, y, _ = scan_of(given)
        both = at_null_label(given.prior), at_null_label(self.other)
        levels = jnp.asarray(self.levels)
        x = operator.naive_inverse(y)
        return disagreement(key, x, *both, levels, draws=self.draws)

    def judge(self, looked: Heatmap) -> Detection:
        return self.of_map(looked)


def disagreement(
    key: PRNGKey,
    x: Image,
    prior: Denoiser,
    other: Denoiser,
    levels: Float[Array, " k"],
    *,
    draws: int = 1,
) -> Heatmap:
    """Return int |D_p - D_q|^2 / s^2 d(ln s) of each pixel, by the trapezoid rule.

    Its mean over draws x of p, summed over pixels, is KL(p || q) between the levels.

    Args:
      key: draw n of level k uses fold_in(fold_in(key, k), n).
      x: image, image units.
      prior, other: p and q.
      levels: increasing, > 0, image units.
      draws: of the noise, averaged over.
    """

    def at(inputs):
        index, sigma = inputs
        key_level = jax.random.fold_in(key, index)

        def one(n):
            z = jax.random.normal(jax.random.fold_in(key_level, n), x.shape, x.dtype)
            noised = x + sigma * z
            gap = prior(noised, sigma) - other(noised, sigma)
            return jnp.sum(gap**2, -1) / sigma**2

        return jax.lax.map(one, jnp.arange(draws)).mean(0)

    curve = jax.lax.map(at, (jnp.arange(len(levels)), levels))
    return jnp.tensordot(trapezoid(levels), curve, 1)
