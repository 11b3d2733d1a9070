"""From a scan to its posterior: N chains down T noise levels, drawn once an image.

Every detector looks at the same draws. How well they fit is told by their misfit,

    mean |y - A x|^2 / noise_std^2,   per real component,

which is 1 on average where prior, operator and noise are right (docs/theory.md,
section 9).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import sde, struct
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.sample import sample
from klip_jax.samplers.resampling import Resampling
from klip_jax.scan import residual
from klip_jax.types import (
    Conditional,
    Denoiser,
    Guidance,
    Posterior,
    PRNGKey,
    Sampler,
    Scalar,
    Scan,
)


@struct.dataclass
class PosteriorSampler:
    """How the posterior of a scan is drawn.

    Attributes:
      sampler: see `types.Sampler`.
      guidance: how the measurements act on it.
      samples: N draws, >= 1; KLIP needs 3 for its error.
      steps: T noise levels, >= 2.
      sigma_max, sigma_min: the highest and the lowest, image units.

    Raises:
      ValueError: naming the first setting that cannot work.
    """

    sampler: Sampler = Resampling()
    guidance: Guidance = ConditionalGaussian(3.0)
    samples: int = struct.field(pytree_node=False, default=6)
    steps: int = struct.field(pytree_node=False, default=20)
    sigma_max: Scalar = 20.0
    sigma_min: Scalar = 0.01

    def __post_init__(self):
        for name, least in (("samples", 1), ("steps", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value}: need an integer >= {least}")
        low, high = self.sigma_min, self.sigma_max
        numbers = isinstance(low, int | float) and isinstance(high, int | float)
        if numbers and not 0 < low < high < math.inf:
            raise ValueError(
                f"sigma_min={low}, sigma_max={high}: need 0 < lowest < highest"
            )

    @property
    def network_calls(self) -> int:
        """Network calls an image."""
        return self.samples * self.steps * self.sampler.calls_per_step

    def levels(self) -> Float[Array, " t"]:
        """Return the noise levels [T + 1], decreasing to 0, image units."""
        rising = sde.log_levels(self.steps, self.sigma_min, self.sigma_max)
        return jnp.append(rising[::-1], 0.0)

    def __call__(self, key: PRNGKey, scan: Scan, prior: Any) -> Posterior:
        """Draw the posterior of one scan. Pure: jit it, vmap it.

        Args:
          key: sample n uses fold_in(key, n).
          scan: what was measured.
          prior: a denoiser; a prior that knows classes is taken at its null label.

        Returns:
          A `Posterior`.
        """
        denoiser = at_null_label(prior)
        sigmas, shape = self.levels(), scan.operator.in_shape

        def chain(n):
            return sample(
                jax.random.fold_in(key, n),
                self.sampler,
                denoiser,
                sigmas,
                shape,
                guidance=self.guidance,
                scan=scan,
            )

        chains = jax.vmap(chain)(jnp.arange(self.samples))
        x, bad = chains.x, chains.first_bad_step
        first_bad = jnp.where(bad < 0, self.steps, bad).min()
        first_bad = jnp.where(first_bad == self.steps, -1, first_bad)
        return Posterior(x, x.mean(0), x.std(0), misfit(scan, x), first_bad)


def misfit(scan: Scan, samples: Float[Array, "n h w c"]) -> Float[Array, ""]:
    """Return the mean of |y - A x|^2 / noise_std^2 over samples and measurements.

    A complex measurement counts as two, as noise_std is per real component.
    """
    squares = jnp.abs(jax.vmap(lambda x: residual(scan, x))(samples)) ** 2
    components = 2 if jnp.iscomplexobj(scan.y) else 1
    return jnp.mean(squares / jnp.asarray(scan.noise_std) ** 2) / components


def at_null_label(prior: Any) -> Denoiser:
    """Return `prior` if it denoises, else that of its null label, of no class."""
    knows_classes = isinstance(prior, Conditional) and not callable(prior)
    return prior.given(None) if knows_classes else prior
