"""The release's predictor-corrector with projections onto the measurements (Song'22).

With A of orthonormal rows on a grid around the image (`operators.radial`), projecting
replaces the share L of what is seen by measurements of the state's own noise:

    P(x) = x + L A^T (y + s A z - A x) = x + L (A^T y - A^T A (x - s z)).

A step at level s projects, takes a Langevin step x + r score + sqrt(2 r) z with r = 2
(snr |z| / |score|)^2, projects again with another z, and takes an unguided step of the
reverse SDE to s'. What is recorded divides by g = s sqrt(2 ln(s_max / s_min)).

The shift of a projection is not g^2 times a likelihood score times dt: its energy is a
score, not nats.

Reference: Song et al. 2022, algorithm 1; Song et al. 2021, algorithms 1, 2 and 5, as
released with Kheirandish, Hong and Fridovich-Keil 2026.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.operators.radial import RadialLines
from klip_jax.samplers.base import FromNoise, is_number
from klip_jax.types import Denoiser, Guidance, Image, PRNGKey, Scalar, StepInfo

SIGMA_MIN, SIGMA_MAX = 0.01, 128.0


class Projected(NamedTuple):
    """What was measured without noise, and its back-projection; see `measured`.

    Attributes:
      operator: A.
      y: the measurements [operator.out_shape].
      back: A^T y, so that no step computes it again.
    """

    operator: RadialLines
    y: Float[Array, "cells 2"]
    back: Image

    def project(self, x: Image, noise: Image | float, coefficient: Scalar) -> Image:
        """Return P(x) - x for x and the noise s z of the state."""
        return coefficient * (self.back - self.operator.normal(x - noise))


def measured(operator: RadialLines, y: Float[Array, "cells 2"]) -> Projected:
    """Return the scan that `Song22` takes, from y [operator.out_shape]."""
    return Projected(operator, y, operator.adjoint(y))


@struct.dataclass
class Song22(FromNoise):
    """Projecting predictor-corrector step from level s to s', see the module.

    Needs sigma > sigma_next >= 0, and a `Projected` for its scan; the guidance is not
    looked at. Two network calls; noise_var = 0: no path KL.

    Attributes:
      coefficient: L in (0, 1].
      snr: of the Langevin step, > 0.
      as_recorded: let shift be P(x) - x of the corrector alone, which holds the fresh
        noise s z, a floor under every map. By default it is the sum of both
        projections' moves as they would be without that noise.
      batch_axis: name of the vmapped axis over which |z| and |score| are averaged, as
        in the release. It couples the samples; None does not.

    Raises:
      ValueError: if `coefficient` or `snr` is out of range.
    """

    coefficient: Scalar = 0.841
    snr: Scalar = 0.246
    as_recorded: bool = struct.field(pytree_node=False, default=False)
    batch_axis: str | None = struct.field(pytree_node=False, default=None)

    def __post_init__(self):
        if is_number(self.coefficient) and not 0 < self.coefficient <= 1:
            raise ValueError(
                f"coefficient={self.coefficient}: must be in (0, 1]; it is a share"
            )
        if is_number(self.snr) and not self.snr > 0:
            raise ValueError(
                f"snr={self.snr}: must be > 0; it scales the Langevin step"
            )

    @property
    def calls_per_step(self) -> int:
        """Network calls of one step."""
        return 2

    def step(
        self,
        key: PRNGKey,
        x: Image,
        denoiser: Denoiser,
        guidance: Guidance,
        scan: Projected,
        sigma: Scalar,
        sigma_next: Scalar,
    ) -> tuple[Image, StepInfo]:
        """Go from `sigma` to `sigma_next`; see `types.Sampler`."""
        noises = jax.random.normal(key, (4, *x.shape), x.dtype)
        return self.move(noises, x, denoiser, scan, sigma, sigma_next)

    def move(
        self,
        noises: Float[Array, "4 h w c"],
        x: Image,
        denoiser: Denoiser,
        scan: Projected,
        sigma: Scalar,
        sigma_next: Scalar,
    ) -> tuple[Image, StepInfo]:
        """Take the step with the given noises, standard normal.

        Args:
          noises: of the corrector's projection, of the Langevin step, of the
            predictor's projection, of the predictor.
          x: the state at sigma, image units.
          denoiser, scan, sigma, sigma_next: see `types.Sampler`.

        Returns:
          (x', StepInfo).
        """

        def score(x):
            x0 = denoiser(x, sigma)
            return x0, (x0 - x) / sigma**2

        def length(v):
            own = jnp.linalg.norm(v)
            return (
                own if self.batch_axis is None else jax.lax.pmean(own, self.batch_axis)
            )

        def project(x, z):
            moved = scan.project(x, sigma * z, self.coefficient)
            if self.as_recorded:
                return moved, moved
            return moved, scan.project(x, 0.0, self.coefficient)

        moved, shift = project(x, noises[0])
        corrected = x + moved
        _, slope = score(corrected)
        size = 2 * (self.snr * length(noises[1]) / length(slope)) ** 2
        corrected = corrected + size * slope + jnp.sqrt(2 * size) * noises[1]

        moved, second = project(corrected, noises[2])
        shift = shift if self.as_recorded else shift + second
        projected = corrected + moved
        x0, slope = score(projected)
        v = sigma**2 - sigma_next**2
        new = projected + v * slope + jnp.sqrt(v) * noises[3]
        return new, StepInfo(sigma, sigma_next, x, x0, shift, sigma * 0)


def finish(x: Image, denoiser: Denoiser, scan: Projected, sigma: Scalar) -> Image:
    """Denoise the last state, and project it once more with L = 1.

    Args:
      x: the state after the last step [H, W, C].
      denoiser: the prior.
      scan: see `measured`.
      sigma: the level to denoise from; the release takes its lowest again.

    Returns:
      The image [H, W, C].
    """
    x = denoiser(x, sigma)
    return x + scan.project(x, 0.0, 1.0)


def levels(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (sigma, sigma_next) of each step [steps], as released.

    sigma(t) = s_min (s_max / s_min)^t at t = linspace(1, 1e-5, steps), while the
    predictor's variance is that between evenly spaced levels of the same range; both
    agree to 1e-4, so that `sde.log_levels` downwards with a 0 is the same chain.

    Args:
      steps: >= 2.
    """
    log_ratio = math.log(SIGMA_MAX / SIGMA_MIN)
    sigma = SIGMA_MIN * np.exp(log_ratio * np.linspace(1, 1e-5, steps))
    even = SIGMA_MIN * np.exp(log_ratio * np.linspace(1, 0, steps))
    variance = even**2 - np.append(even[1:], 0) ** 2
    following = np.sqrt(np.maximum(sigma**2 - variance, 0))
    return sigma.astype(np.float32), following.astype(np.float32)


def training_g() -> Callable[[Scalar], Scalar]:
    """Return sigma -> g, the release's normalisation: its SDE's diffusion."""
    return lambda sigma: math.sqrt(2 * math.log(SIGMA_MAX / SIGMA_MIN)) * sigma
