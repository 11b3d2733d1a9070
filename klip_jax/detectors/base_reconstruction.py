"""What detectors by reconstruction share: the chain from a noise level, and z-scores.

    x_s = x + s z,   x^ = the deterministic chain from x_s down to level 0,
    z-score of errors e_s:   mean over s of (e_s - m_s) / d_s,

with m_s and d_s the mean and standard deviation of the image's mean error over
in-distribution images. Near 0 a chain returns x whatever x is, far up it forgets x; an
anomaly shows between, and the z-scores make the levels comparable.

Reference: Graham et al. 2023 (DDPM-OOD); docs/theory.md, section 12.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base_fit import spread
from klip_jax.sample import sample
from klip_jax.samplers.ddim import DDIM
from klip_jax.types import Denoiser, Detection, Guidance, Image, PRNGKey, Scalar


def reconstruct(
    key: PRNGKey,
    x: Image,
    prior: Denoiser,
    sigma: Scalar,
    *,
    steps: int,
    guidance: Guidance,
    scan: Any = None,
) -> Image:
    """Noise `x` to the level `sigma` and run DDIM from there down to 0.

    Step i = 0 .. T of the chain is at sigma (1 - i / T)^2: relative to its start, so
    that any start has T steps, and finer below, where the image is decided.

    Args:
      key: the noise uses fold_in(key, 0); the chain draws none.
      x: image [H, W, C], image units.
      prior: a denoiser.
      sigma: noise level to start from, > 0, image units.
      steps: T >= 1, one score each.
      guidance: what guides the chain; `NoGuidance()` for nothing.
      scan: what was measured, for the guidance.

    Returns:
      x^ [H, W, C], image units.

    Raises:
      ValueError: if there is no step.

    Reference: Song et al. 2021 (DDIM), eq. 12 with eta = 0.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: the chain needs at least 1")
    z = jax.random.normal(jax.random.fold_in(key, 0), x.shape, x.dtype)
    sigmas = sigma * (jnp.arange(steps, -1, -1, x.dtype) / steps) ** 2
    start = x + sigma * z
    chain = sample(
        key, DDIM(), prior, sigmas, x.shape, guidance=guidance, scan=scan, start=start
    )
    return chain.x


@struct.dataclass
class LevelLaw:
    """The usual error of each of L levels, over in-distribution images.

    Attributes:
      mean, std: of the image's mean error; std is never 0.
    """

    mean: Float[Array, " level_count"]
    std: Float[Array, " level_count"]

    @classmethod
    def of(cls, errors: Float[Array, "n level_count *grid"]) -> "LevelLaw":
        """Fit to the errors of N >= 2 images, maps or their means.

        Raises:
          ValueError: if there are fewer than 2 images.
        """
        errors = jnp.asarray(errors)
        means = errors.reshape(*errors.shape[:2], -1).mean(-1)
        return cls(means.mean(0), spread(means))

    def z_score(
        self, errors: Float[Array, "level_count *grid"]
    ) -> Float[Array, "*grid"]:
        """Return the mean over levels of (errors - mean) / std, without unit.

        It is affine in the errors, so the mean of a map of z-scores is the z-score of
        the image, the score of DDPM-OOD.
        """
        levels_last = jnp.moveaxis(errors, 0, -1)
        return jnp.mean((levels_last - self.mean) / self.std, -1)

    def detection(self, errors: Float[Array, "level_count h w"]) -> Detection:
        """Return the map of z-scores, and their mean as the score."""
        heatmap = self.z_score(errors)
        return Detection(heatmap.mean(), jnp.full((), jnp.nan), heatmap)
