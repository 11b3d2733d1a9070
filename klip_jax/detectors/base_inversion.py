"""DDIM up the noise levels with an early stop, and down again from where it stopped:

    up:    x_{i+1} = D + sigma_{i+1} / sigma_i (x_i - D),    D = D(x_i, sigma_i)
    down:  x_{k-1} = D_y + sigma_{k-1} / sigma_k (x_k - D_y),    D_y = D + sigma_k^2 g

An image stops once its own rule says so, and goes down from its own level. Images of
one batch may stop at different levels, and each is what it would be alone: both loops
end with the image that takes longest, while the others hold still. The state between
the two is the variance-preserving one, so that a chain may go down from another level
than it reached, as the release does.

Reference: Song, Meng and Ermon 2021, eq. 13-14; Gao et al. 2023 (DiffGuard), eqs. 3, 4
and 6 and section 3.2.1, and its release; docs/theory.md, (15.2), (15.5) to (15.7) and
(15.15).
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
BEST_PSNR = 40
"""Of a state and its picture, dB; the first step up has less."""
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
      steps: at most this many.
      stop: whether to end at a state.
    """
    low = ladder.low
    levels = (ladder.below, ladder.above, ladder.told)
    below, above, told = (jnp.asarray(a[:steps], x.dtype) for a in levels)

    def step(carry):
        state, i, _ = carry
        sigma, sigma_next, asked = below[i], above[i], told[i]
        shown = exploding(state, asked, low=low)
        own, x0 = before_and_after(denoiser, shown, asked)
        x0 = jnp.where(i > 0, x0, own)
        z = (shown - x0) / asked
        # Where the network is asked at another level, the noise is what is kept.
        x0 = jnp.where(asked == sigma, x0, exploding(state, sigma, low=low) - sigma * z)
        state = preserving(x0 + sigma_next * z, sigma_next, low=low)
        return state, i + 1, stop(state)

    def goes_on(carry):
        return (carry[1] < len(below)) & ~carry[2]

    start = (x, jnp.int32(0), jnp.asarray(False))
    state, made, _ = jax.lax.while_loop(goes_on, step, start)
    return Inverted(state, made - 1)


def generate(
    denoiser: Denoiser,
    guidance: Guidance,
    scan_at: Callable[[Int[Array, ""]], Any],
    latent: Image,
    ladder: Ladder,
    *,
    first: Int[Array, ""],
) -> Image:
    """Go down from the level `first` to the end of the ladder; first + 1 steps.

    Args:
      denoiser: the prior, clipped or not; what guidance adds is not clipped.
      guidance: of each step.
      scan_at: what the guidance is told at step 0, 1, .. of this image.
      latent: the variance-preserving state, taken to lie at sigmas[first].
      ladder: the levels.
      first: where to start.

    Returns:
      The variance-preserving state at the ladder's end, where that is 0 the image.
    """
    low = ladder.low
    levels = jnp.asarray(np.concatenate([[ladder.end], ladder.sigmas]), latent.dtype)

    def step(carry):
        x, k = carry
        sigma, sigma_next = levels[k + 1], levels[k]
        x0, score = guidance.score(denoiser, scan_at(first - k), x, sigma)
        x0 = x0 + sigma**2 * score
        return x0 + sigma_next / sigma * (x - x0), k - 1

    start = exploding(latent, levels[first + 1], low=low), jnp.asarray(first, jnp.int32)
    x, _ = jax.lax.while_loop(lambda carry: carry[1] >= 0, step, start)
    return preserving(x, jnp.asarray(ladder.end, x.dtype), low=low)


def released_decibels(threshold: Scalar) -> Scalar:
    """Return in dB a threshold of the release, whose peak of [-1, 1] is 255.

    threshold - 20 log10(255 / 2), so that 48.5 is 6.39, the paper's.

    >>> round(released_decibels(48.5), 2)
    6.39
    """
    return threshold - 20 * math.log10(255 / 2)


def check_thresholds(
    stop_psnr: Scalar, released: Scalar | None, stop_distance: Scalar
) -> None:
    """Check where a way up ends, as far as the numbers are known.

    Args:
      stop_psnr: dB; -inf never stops.
      released: on the release's scale, or None.
      stop_distance: of DISTS or LPIPS; inf never stops.

    Raises:
      ValueError: naming the first that is outside its scale.
    """
    known = isinstance(stop_psnr, int | float)
    if known and not stop_psnr <= BEST_PSNR:
        raise ValueError(
            f"stop_psnr={stop_psnr}: must be at most {BEST_PSNR}, a picture without "
            "noise; if it is of the release, whose 48.5 is 6.39 dB, set "
            "released_stop_psnr"
        )
    if isinstance(released, int | float):
        ours = released_decibels(released)
        if not 0 <= ours <= BEST_PSNR:
            raise ValueError(
                f"released_stop_psnr={released}: is {ours:.2f} dB, which is none of 0 "
                f".. {BEST_PSNR}; if it is in dB of the right peak, set stop_psnr"
            )
    known = isinstance(stop_distance, int | float)
    if known and not (0 < stop_distance <= 1 or stop_distance == math.inf):
        raise ValueError(
            f"stop_distance={stop_distance}: must lie in (0, 1], or be inf and never "
            "stop; of a similarity s give 1 - s"
        )
