"""KLIP: how far the measurements pulled the posterior from the prior, and where.

1. N posterior samples by resampling down T noise levels (`samplers.resampling`).
2. The KL integrand of each at K noise levels of the window (`kl.levels_kl`).
3. The map is the chosen one of `kl.MAPS`, by blocks of pixels; the image score is the
   mean of its largest blocks.

2 N K + N T network calls an image, no derivative of the network. The defaults were
chosen on real images with anomalies simulated there, CT, MRI and faces of 64 pixels.

Reference: Kheirandish, Hong and Fridovich-Keil 2026, section 4; the estimator is ours.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax import kl, sde
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.sample import Sampled, sample
from klip_jax.samplers.resampling import resampling
from klip_jax.types import Denoiser, Detection, LinearOperator


class Settings(NamedTuple):
    """Numbers of the estimator; sigma in image units ([0, 1] images).

    Attributes:
      samples: N posterior samples, >= 3.
      steps: T noise levels of the sampler.
      sigma_max, sigma_min: its highest and lowest.
      inflation: factor on the prior's expected error; see `ConditionalGaussian`. The
        right one brings the misfit of the samples (`Estimate`) to 1; 1 for priors
        whose p(x0 | x_sigma) is a white Gaussian.
      levels: K noise levels of the estimator.
      window: their lowest and highest.
      block: side of a block, pixels.
      scale: size of the changes that the coherent maps emphasise, pixels.
      emphasis: how far they count more than others, in [0, 1]; see `kl.levels_kl`.
      pooling: width over which the map is pooled, pixels; see `filters.pool`.
      map: one of `kl.MAPS`, what is shown and scored.
      top: share of blocks whose mean is the image score; 0 takes the largest block.
      chunk: levels evaluated at once.
    """

    samples: int = 6
    steps: int = 20
    sigma_max: float = 20.0
    sigma_min: float = 0.01
    inflation: float = 3.0
    levels: int = 6
    window: tuple[float, float] = (0.02, 0.8)
    block: int = 4
    scale: float = 2.0
    emphasis: float = 0.05
    pooling: float = 3.0
    map: str = "coherent_guided"
    top: float = 0.02
    chunk: int = 1

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise a ValueError naming the first setting that cannot work."""
        kl.check_block(self.block, image_shape)
        if len(self.window) != 2:
            raise ValueError(f"estimator: window={self.window}: give (lowest, highest)")
        low, high = self.window
        rules = {
            f"samples={self.samples}: need at least 3": self.samples < 3,
            f"steps={self.steps}: need at least 2": self.steps < 2,
            f"levels={self.levels}: need at least 2": self.levels < 2,
            f"sigma_min={self.sigma_min}, sigma_max={self.sigma_max}: need 0 < lowest "
            "< highest": not 0 < self.sigma_min < self.sigma_max,
            f"window={self.window}: need sigma_min <= lowest < highest <= sigma_max, "
            f"here [{self.sigma_min}, {self.sigma_max}]": not (
                self.sigma_min <= low < high <= self.sigma_max
            ),
            f"inflation={self.inflation}: must be positive and finite": not (
                0 < self.inflation < math.inf
            ),
            f"scale={self.scale}: must be >= 0": not self.scale >= 0,
            f"emphasis={self.emphasis}: must be in [0, 1]": not (
                0 <= self.emphasis <= 1
            ),
            f"pooling={self.pooling}: must be >= 0": not self.pooling >= 0,
            f"map={self.map!r}: choose one of {kl.MAPS}": self.map not in kl.MAPS,
            f"top={self.top}: a share in [0, 1)": not 0 <= self.top < 1,
            f"chunk={self.chunk} does not divide levels={self.levels}": (
                self.chunk < 1 or self.levels % self.chunk > 0
            ),
        }
        for message, broken in rules.items():
            if broken:
                raise ValueError(f"estimator: {message}")

    @property
    def network_calls(self) -> int:
        """Network calls an image."""
        return self.samples * (self.steps + 2 * self.levels)


class Estimate(NamedTuple):
    """Everything one image yields.

    Attributes:
      levels: maps and block sums; see `kl.Levels`.
      mean, std: of the posterior samples [H, W, C].
      misfit: mean over samples and measurements of (y - A x)^2 / noise_std^2. Where
        prior, operator and noise are right it is 1 on average.
      first_bad_step: first step of any chain that was not finite, -1 if none.
    """

    levels: kl.Levels
    mean: Array
    std: Array
    misfit: Array
    first_bad_step: Array


def sampler_levels(settings: Settings) -> Array:
    """Return the sampler's noise levels [T + 1], decreasing to 0, image units."""
    low, high = settings.sigma_min, settings.sigma_max
    return jnp.append(sde.log_levels(settings.steps, low, high)[::-1], 0.0)


def posterior_samples(
    key: Array, likelihood: ConditionalGaussian, prior: Denoiser, settings: Settings
) -> Sampled:
    """Draw N samples of p(x|y) by resampling down the noise levels.

    Args:
      key: sample n uses fold_in(key, n).
      likelihood: what was measured.
      prior: a denoiser with `variance`.
      settings: samples, steps, sigma_min and sigma_max count here.

    Returns:
      A `Sampled` with a leading axis [N]; x is [N, H, W, C].
    """
    sigmas = sampler_levels(settings)

    def chain(n):
        key_n = jax.random.fold_in(key, n)
        shape = likelihood.operator.in_shape
        return sample(key_n, resampling(), prior, likelihood, sigmas, shape)

    return jax.vmap(chain)(jnp.arange(settings.samples))


def estimate(
    key: Array,
    y: Array,
    operator: LinearOperator,
    noise_std: Array,
    prior: Denoiser,
    settings: Settings,
) -> Estimate:
    """Sample the posterior of one image and estimate its KL maps. Pure: jit it.

    Args:
      key: of the image.
      y: measurements [operator.out_shape].
      operator: A.
      noise_std: of y, > 0.
      prior: a denoiser with `variance`.
      settings: static numbers.
    """
    likelihood = ConditionalGaussian(operator, y, noise_std, settings.inflation)
    key_samples, key_levels = jax.random.split(key)
    chains = posterior_samples(key_samples, likelihood, prior, settings)
    levels = kl.levels_kl(
        key_levels,
        prior,
        likelihood,
        chains.x,
        sde.log_levels(settings.levels, *settings.window),
        block=settings.block,
        scale=settings.scale,
        emphasis=settings.emphasis,
        pooling=settings.pooling,
        chunk=settings.chunk,
    )
    bad = chains.first_bad_step
    first_bad = jnp.where(bad < 0, settings.steps, bad).min()
    first_bad = jnp.where(first_bad == settings.steps, -1, first_bad)
    residual = y - jax.vmap(operator)(chains.x)
    misfit = jnp.mean(residual**2) / noise_std**2
    return Estimate(levels, chains.x.mean(0), chains.x.std(0), misfit, first_bad)


def chosen_map(levels: kl.Levels, settings: Settings) -> Array:
    """Return the block map [H/b, W/b] that is scored."""
    return levels.block_map[kl.MAPS.index(settings.map)]


def detection(
    levels: kl.Levels,
    settings: Settings,
    position: tuple[Array, Array] | None = None,
) -> Detection:
    """Reduce the maps of one image to a `Detection` with a jackknife error.

    Args:
      levels: of `estimate`.
      settings: the same as there.
      position: mean and standard deviation of each block [H/b, W/b] under the reference
        law; the map and the score are then z-scores.
    """
    index = kl.MAPS.index(settings.map)
    block_map, left_out = levels.block_map[index], levels.left_out[:, index]
    heatmap = levels.heatmap[index]
    if position is not None:
        block_map, left_out = (
            (m - position[0]) / position[1] for m in (block_map, left_out)
        )
        heatmap = jnp.kron(block_map, jnp.ones((settings.block, settings.block)))
    score = kl.top_mean(block_map, settings.top)
    replicates = jax.vmap(lambda m: kl.top_mean(m, settings.top))(left_out)
    return Detection(score, kl.jackknife_stderr(replicates), heatmap)


def detect(
    y: Array,
    operator: LinearOperator,
    noise_std: float,
    prior: Denoiser,
    *,
    key: Array,
    settings: Settings | None = None,
) -> Detection:
    """Score one measurement: how far did y pull the posterior, and where?

    Args:
      y: measurements [operator.out_shape], in the operator's unit.
      operator: the scanner, e.g. `operators.ct.ParallelBeam`.
      noise_std: standard deviation of the noise in y, > 0.
      prior: a denoiser of images in [0, 1], e.g. from `load_prior`.
      key: a `jax.random.key`.
      settings: the estimator's numbers; None takes the defaults.

    Returns:
      A `Detection`: score and stderr of a block, heatmap [H, W] by pixel; in nats with
      a true likelihood score and no emphasis.

    Raises:
      ValueError: if y has another shape or is not finite, noise_std is not positive, or
        a setting cannot work.
    """
    settings = Settings() if settings is None else settings
    settings.check(operator.in_shape)
    y = jnp.asarray(y)
    if y.shape != operator.out_shape:
        raise ValueError(
            f"y has shape {y.shape}, but {type(operator).__name__} measures "
            f"{operator.out_shape}; check the geometry"
        )
    if not bool(jnp.isfinite(y).all()):
        raise ValueError("y holds values that are NaN or infinite")
    if not noise_std > 0:
        raise ValueError(f"noise_std={noise_std}: must be positive; KL diverges at 0")
    found = _jitted_estimate(key, y, operator, noise_std, prior, settings)
    return detection(found.levels, settings)


_jitted_estimate = jax.jit(estimate, static_argnames="settings")
