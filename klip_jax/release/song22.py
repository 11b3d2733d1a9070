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

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from klip_jax.guidance.base import Measured
from klip_jax.operators.radial import RadialLines
from klip_jax.samplers.base import gaussian_init
from klip_jax.types import Denoiser, Sampler, StepInfo

SIGMA_MIN, SIGMA_MAX = 0.01, 128.0


@struct.dataclass
class Projected(Measured):
    """What was measured, and its back-projection; see `measured`.

    Attributes:
      operator, y, noise_std: see `Measured`; the noise is not used.
      back: A^T y [H, W, C], so that no step computes it again.
    """

    back: Array

    def project(self, x: Array, noise: Array, coefficient: float) -> Array:
        """Return P(x) - x for x and the noise s z of the state [H, W, C]."""
        return coefficient * (self.back - self.operator.normal(x - noise))


def measured(operator: RadialLines, y: Array) -> Projected:
    """Return the likelihood that `song22` takes, from y [operator.out_shape]."""
    return Projected(operator, y, jnp.zeros((), y.dtype), operator.adjoint(y))


def song22(
    coefficient: float = 0.841,
    snr: float = 0.246,
    *,
    as_recorded: bool = False,
    batch_axis: str | None = None,
) -> Sampler:
    """Projecting predictor-corrector step from level s to s', see the module.

    Two network calls.

    Args:
      coefficient: L in (0, 1].
      snr: of the Langevin step, > 0.
      as_recorded: let shift be P(x) - x of the corrector alone, which holds the fresh
        noise s z, a floor under every map. By default it is the sum of both
        projections' moves as they would be without that noise.
      batch_axis: name of the vmapped axis over which |z| and |score| are averaged, as
        in the release. It couples the samples; None does not.

    Returns:
      A `Sampler` for a `Projected`; its `step` needs sigma > sigma_next >= 0. noise_var
      = 0: no path KL.

    Raises:
      ValueError: if `coefficient` or `snr` is out of range.
    """
    if not 0 < coefficient <= 1:
        raise ValueError(f"coefficient={coefficient}: must be in (0, 1]; it is a share")
    if not snr > 0:
        raise ValueError(f"snr={snr}: must be > 0; it scales the Langevin step")

    def step(key, x, denoiser, likelihood, sigma, sigma_next):
        noises = jax.random.normal(key, (4, *x.shape), x.dtype)
        settings = dict(coefficient=coefficient, snr=snr)
        settings |= dict(as_recorded=as_recorded, batch_axis=batch_axis)
        levels = sigma, sigma_next
        return move(noises, x, denoiser, likelihood, *levels, **settings)

    return Sampler(gaussian_init, step)


def move(
    noises: Array,
    x: Array,
    denoiser: Denoiser,
    likelihood: Projected,
    sigma: Array,
    sigma_next: Array,
    *,
    coefficient: float = 0.841,
    snr: float = 0.246,
    as_recorded: bool = False,
    batch_axis: str | None = None,
) -> tuple[Array, StepInfo]:
    """Take the step of `song22` with the given noises.

    Args:
      noises: standard normal [4, H, W, C]: of the corrector's projection, of the
        Langevin step, of the predictor's projection, of the predictor.
      x: the state at sigma [H, W, C], image units.
      denoiser, likelihood, sigma, sigma_next: see `types.Sampler`.
      coefficient, snr, as_recorded, batch_axis: see `song22`.

    Returns:
      (x', StepInfo).
    """

    def score(x):
        x0 = denoiser(x, sigma)
        return x0, (x0 - x) / sigma**2

    def length(v):
        found = jnp.linalg.norm(v)
        return found if batch_axis is None else jax.lax.pmean(found, batch_axis)

    def project(x, z):
        moved = likelihood.project(x, sigma * z, coefficient)
        if as_recorded:
            return moved, moved
        return moved, likelihood.project(x, 0.0, coefficient)

    moved, shift = project(x, noises[0])
    x = x + moved
    _, slope = score(x)
    size = 2 * (snr * length(noises[1]) / length(slope)) ** 2
    x = x + size * slope + jnp.sqrt(2 * size) * noises[1]

    moved, second = project(x, noises[2])
    shift = shift if as_recorded else shift + second
    x = x + moved
    x0, slope = score(x)
    v = sigma**2 - sigma_next**2
    x = x + v * slope + jnp.sqrt(v) * noises[3]
    return x, StepInfo(sigma, sigma_next, x0, shift, sigma * 0)


def finish(x: Array, denoiser: Denoiser, likelihood: Projected, sigma: Array) -> Array:
    """Denoise the last state, and project it once more with L = 1.

    Args:
      x: the state after the last step [H, W, C].
      denoiser: the prior.
      likelihood: see `measured`.
      sigma: the level to denoise from; the release takes its lowest again.

    Returns:
      The image [H, W, C].
    """
    x = denoiser(x, sigma)
    return x + likelihood.project(x, 0.0, 1.0)


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
    return np.float32(sigma), np.float32(following)


def training_g() -> Callable[[Array], Array]:
    """Return sigma -> g, the release's normalisation: its SDE's diffusion."""
    return lambda sigma: math.sqrt(2 * math.log(SIGMA_MAX / SIGMA_MIN)) * sigma
