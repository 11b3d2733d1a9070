"""DDIM up the noise levels with an early stop, and down again from where it stopped:

    up:    x_{i+1} = D + sigma_{i+1} / sigma_i (x_i - D),    D = D(x_i, sigma_i)
    down:  x_{k-1} = D_y + sigma_{k-1} / sigma_k (x_k - D_y),    D_y = D + sigma_k^2 g

An image stops once its own rule says so and holds still from there, so that images of
one batch may stop at different levels and each is what it would be alone; on the way
down it holds still until its own level comes. The state between the two is the
variance-preserving one, so that a chain may go down from another level than it reached,
as the release does.

Reference: Song, Meng and Ermon 2021, eq. 13-14; Gao et al. 2023 (DiffGuard), sections
3.1 and 3.2, and its release; docs/theory.md, section 12.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from klip_jax.guidance.base_preserving import exploding, preserving
from klip_jax.priors.base import timestep_sigmas
from klip_jax.priors.clipped import before_and_after
from klip_jax.types import Denoiser, Guidance, Image, Scalar

TIMESTEPS = 1000
Levels = Float[np.ndarray, " l"]


class Ladder(NamedTuple):
    """Noise levels of a respaced process, unit of the prior's images.

    Attributes:
      sigmas: of the way down, increasing.
      end: where the way down ends.
      low: a network's range is [low, 1].
      below, above: of each step up.
      told: the level at which the network is asked in that step.
    """

    sigmas: Levels
    end: float
    low: float
    below: Levels
    above: Levels
    told: Levels


class Inverted(NamedTuple):
    """Where the way up ended.

    Attributes:
      latent: the variance-preserving state.
      stop: index of the last step up that was made, from 0.
    """

    latent: Image
    stop: Int[Array, ""]


def pixel_ladder(steps: int) -> Ladder:
    """Return the levels of images: every (1000 / steps)th of the linear schedule.

    An image is taken to lie at the lowest level already.

    Args:
      steps: how many levels; 1000 / stride, rounded up, of a whole stride.

    Raises:
      ValueError: if there is no such stride.

    Reference: the releases of Nichol and Dhariwal 2021 ("ddim100") and of DiffGuard.
    """
    strides = [s for s in range(1, TIMESTEPS) if len(range(0, TIMESTEPS, s)) == steps]
    if not strides or steps < 2:
        raise ValueError(
            f"steps={steps}: must be 1000 over a whole stride, such as 20, 25, 50, "
            "100 or 250"
        )
    betas = np.linspace(1e-4, 0.02, TIMESTEPS)
    sigmas = timestep_sigmas(betas)[:: strides[0]] / 2
    return Ladder(sigmas, 0.0, -1.0, sigmas[:-1], sigmas[1:], sigmas[:-1])


def latent_ladder(steps: int) -> Ladder:
    """Return the levels of latents: 1, 1 + stride, .. of a schedule linear in sqrt.

    A latent lies at timestep 0, and the way down ends there; on the way up the network
    is asked at the level that is being reached.

    Args:
      steps: asked for; of 1000 // steps as the stride there may be one more.

    Raises:
      ValueError: if it is outside 1 .. 500.

    Reference: the releases of Rombach et al. 2022 and of DiffGuard.
    """
    if not 1 <= steps <= TIMESTEPS // 2:
        raise ValueError(f"steps={steps}: must lie in 1 .. {TIMESTEPS // 2}")
    betas = np.linspace(0.0015**0.5, 0.0195**0.5, TIMESTEPS) ** 2
    every = timestep_sigmas(betas)
    sigmas, end = every[1 :: TIMESTEPS // steps], float(every[0])
    below = np.concatenate([[end], sigmas[:-1]])
    return Ladder(sigmas, end, 0.0, below, sigmas, sigmas)


def invert(
    denoiser: Denoiser,
    x: Image,
    ladder: Ladder,
    *,
    steps: int,
    stop: Callable[[Image], Bool[Array, ""]],
) -> Inverted:
    """Go up until `stop` says so of the variance-preserving state, or to the end.

    The first step takes the estimate as it is before clipping, as in the release.

    Args:
      denoiser: the prior, `priors.clipped.Clipped` or not.
      x: image, taken for the state at the lowest level.
      ladder: the levels.
      steps: at most this many, and all are computed: the program does not depend on
        the image.
      stop: whether to end at a state.
    """
    low = ladder.low
    levels = (ladder.below, ladder.above, ladder.told)
    below, above, told = (jnp.asarray(a[:steps], x.dtype) for a in levels)

    def step(carry, inputs):
        state, index, done = carry
        i, sigma, sigma_next, asked = inputs
        shown = exploding(state, asked, low=low)
        own, x0 = before_and_after(denoiser, shown, asked)
        x0 = jnp.where(i > 0, x0, own)
        z = (shown - x0) / asked
        # Where the network is asked at another level, the noise is what is kept.
        x0 = jnp.where(asked == sigma, x0, exploding(state, sigma, low=low) - sigma * z)
        new = preserving(x0 + sigma_next * z, sigma_next, low=low)
        state, index = jnp.where(done, state, new), jnp.where(done, index, i)
        return (state, index, done | stop(state)), None

    start = (x, jnp.int32(0), jnp.asarray(False))
    inputs = jnp.arange(len(below), dtype=jnp.int32), below, above, told
    (state, index, _), _ = jax.lax.scan(step, start, inputs)
    return Inverted(state, index)


def generate(
    denoiser: Denoiser,
    guidance: Guidance,
    scan_at: Callable[[Int[Array, ""]], Any],
    latent: Image,
    ladder: Ladder,
    *,
    first: Int[Array, ""],
    longest: int,
) -> Image:
    """Go down from the level `first` to the end of the ladder.

    Args:
      denoiser: the prior, clipped or not; what guidance adds is not clipped.
      guidance: of each step.
      scan_at: what the guidance is told at step 0, 1, .. of this image.
      latent: the variance-preserving state, taken to lie at sigmas[first].
      ladder: the levels.
      first: where to start, at most longest - 1.
      longest: steps that are computed, whatever `first` is.

    Returns:
      The variance-preserving state at the ladder's end, where that is 0 the image.
    """
    low = ladder.low
    levels = jnp.asarray(np.concatenate([[ladder.end], ladder.sigmas]), latent.dtype)

    def step(x, k):
        sigma, sigma_next = levels[k + 1], levels[k]
        x = jnp.where(k == first, exploding(latent, sigma, low=low), x)
        scan = scan_at(jnp.maximum(first - k, 0))
        x0, score = guidance.score(denoiser, scan, x, sigma)
        x0 = x0 + sigma**2 * score
        new = x0 + sigma_next / sigma * (x - x0)
        return jnp.where(k <= first, new, x), None

    x, _ = jax.lax.scan(step, latent, jnp.arange(longest - 1, -1, -1, dtype=jnp.int32))
    return preserving(x, jnp.asarray(ladder.end, x.dtype), low=low)


def released_decibels(threshold: Scalar) -> Scalar:
    """Return in dB a threshold of the release, whose peak of [-1, 1] is 255.

    threshold - 20 log10(255 / 2), so that 48.5 is 6.39, the paper's.

    >>> round(released_decibels(48.5), 2)
    6.39
    """
    return threshold - 20 * math.log10(255 / 2)
