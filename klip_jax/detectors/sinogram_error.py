"""Reconstruction error from measurements: does the prior's image explain them?

    x~ = a quick inversion of y (filtered back-projection in CT),
    x^_s = the chain from x~ + s z down to 0, alone or guided by y,
    sinogram domain: |A^T (A x^_s - y)|^2 and mean |A x^_s - y|^2,
    image domain:    |x^_s - x~|^2.

The guided chain keeps what y says, so what is left in the sinogram is what the prior
refuses; it can also draw the anomaly, and then the error is small. Hence the mix of
both chains. As in DDPM-OOD, levels are compared by z-scores (`base_reconstruction`).

Departures: one DDIM of few steps for both chains, data consistency by the conditional
Gaussian, any linear operator. The paper has scalar errors; A^T makes a map of the
sinogram's, in squared units of A^T y. The mix is a plain one of the two errors, with a
weight that is a setting.

Reference: Demircan-Tureyen, Lucka and van Leeuwen 2024, arXiv 2411.06308;
docs/theory.md, section 12.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base import Detector, scan_of
from klip_jax.detectors.base_fit import fitted
from klip_jax.detectors.base_reconstruction import LevelLaw, reconstruct
from klip_jax.detectors.base_settings import check_count, check_positive, check_range
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.guidance.none import NoGuidance
from klip_jax.posterior import at_null_label
from klip_jax.types import Denoiser, Detection, Given, PRNGKey, Scalar, Scan

LEVELS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Noise levels that reconstructions start from, image units."""
RECONSTRUCTIONS = ("unconditional", "conditional")
DOMAINS = ("sinogram", "image")


class Errors(NamedTuple):
    """Errors of the reconstructions; the leading axis of 2 is `RECONSTRUCTIONS`.

    Attributes:
      sinogram: |A^T (A x^ - y)|^2, summed over channels.
      image: |x^ - x~|^2, squared image units, summed over channels.
      misfit: mean |A x^ - y|^2 over the measurements, squared units of y; the paper's
        score in the sinogram domain.
    """

    sinogram: Float[Array, "2 level_count h w"]
    image: Float[Array, "2 level_count h w"]
    misfit: Float[Array, "2 level_count"]


@struct.dataclass
class SinogramError(Detector):
    """The mean z-score of errors from several noise levels, of both chains mixed.

    Attributes:
      levels: to start from, image units, in any order.
      steps: of each chain.
      domain: where errors are taken, one of `DOMAINS`.
      weight: of the conditional reconstruction, in [0, 1].
      block: side of the blocks that localization counts, pixels.
      law: of each level's error, filled by `fit`.
    """

    levels: tuple[Scalar, ...] = LEVELS
    steps: int = struct.field(pytree_node=False, default=10)
    domain: str = struct.field(pytree_node=False, default="sinogram")
    weight: Scalar = 0.5
    block: int = struct.field(pytree_node=False, default=4)
    law: LevelLaw | None = None

    needs = ("scan",)
    fits = True

    def __post_init__(self):
        check_positive(levels=self.levels)
        check_count(steps=self.steps, block=self.block)
        check_range(0.0, 1.0, weight=self.weight)
        if self.domain not in DOMAINS:
            raise ValueError(f"domain={self.domain!r}: choose one of {DOMAINS}")

    @property
    def network_calls(self) -> int:
        return len(RECONSTRUCTIONS) * len(self.levels) * self.steps

    def look(self, key: PRNGKey, given: Given) -> Float[Array, "2 level_count h w"]:
        """Return the maps of both reconstructions' errors in the domain."""
        prior, levels = at_null_label(given.prior), jnp.asarray(self.levels)
        both = errors(key, scan_of(given), prior, levels, steps=self.steps)
        return getattr(both, self.domain)

    def fit(self, looked: Float[Array, "n 2 level_count h w"]) -> "SinogramError":
        return dataclasses.replace(self, law=LevelLaw.of(jax.vmap(self._mixed)(looked)))

    def judge(self, looked: Float[Array, "2 level_count h w"]) -> Detection:
        """Score the mean over levels and pixels of (e_s - m_s) / d_s."""
        return fitted(self, self.law).detection(self._mixed(looked))

    def _mixed(self, looked):
        return (1 - self.weight) * looked[0] + self.weight * looked[1]


def errors(
    key: PRNGKey,
    scan: Scan,
    prior: Denoiser,
    levels: Float[Array, " level_count"],
    *,
    steps: int = 10,
) -> Errors:
    """Return the errors of both reconstructions from each noise level.

    Args:
      key: level l uses fold_in(key, l), the same noise for both reconstructions.
      scan: what was measured.
      prior: a denoiser.
      levels: noise levels to start from, > 0, image units, in any order.
      steps: of each chain, >= 1.

    Returns:
      An `Errors`.

    Raises:
      ValueError: if there is no step.

    Reference: Demircan-Tureyen et al. 2024; see the module for departures.
    """
    operator, y, _ = scan
    naive = operator.naive_inverse(y)

    def at(inputs):
        index, sigma = inputs
        key_level = jax.random.fold_in(key, index)
        both = [
            reconstruct(
                key_level,
                naive,
                prior,
                sigma,
                steps=steps,
                guidance=guidance,
                scan=scan,
            )
            for guidance in (NoGuidance(), ConditionalGaussian())
        ]
        return jax.vmap(compare)(jnp.stack(both))

    def compare(back):
        misfit = operator(back) - y
        return Errors(
            jnp.sum(operator.adjoint(misfit) ** 2, -1),
            jnp.sum((back - naive) ** 2, -1),
            jnp.mean(jnp.abs(misfit) ** 2),
        )

    errors = jax.lax.map(at, (jnp.arange(len(levels)), levels))
    return jax.tree.map(lambda e: jnp.moveaxis(e, 1, 0), errors)
