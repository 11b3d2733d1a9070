"""Score one measurement: what is checked before, and warned of after, is here.

`detect` checks values on the host and compiles once for all images of one shape, all
windows and all widths; inside `jit` or `vmap` it computes the same without checks.

Reference: docs/theory.md, sections 5 to 7.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

from klip_jax.detectors.klip import KLIP
from klip_jax.posterior import PosteriorSampler
from klip_jax.priors.function import check_jittable
from klip_jax.priors.function import prior as as_prior
from klip_jax.types import (
    Detection,
    Detector,
    Given,
    Mask,
    PRNGKey,
    Scan,
)

DETECTOR, POSTERIOR = KLIP(), PosteriorSampler()
LARGE_MISFIT = 2.0
"""Above it the samples contradict y, and the score says nothing of the image."""


def detect(
    y: ArrayLike,
    operator: Any,
    noise_std: ArrayLike,
    prior: Any,
    *,
    key: PRNGKey,
    detector: Detector = DETECTOR,
    posterior_sampler: PosteriorSampler = POSTERIOR,
    eligible: Mask | None = None,
) -> Detection:
    """Score one measurement: how far did y pull the posterior, and where?

    >>> import jax, jax.numpy as jnp
    >>> import klip_jax
    >>> from klip_jax.operators.mask import Half
    >>> def denoise(x, sigma):  # E[x0 | x] for white pixels, N(1/2, 1/4)
    ...     return (x + 2 * sigma**2) / (1 + 4 * sigma**2)
    >>> y, scanner = jnp.ones((32, 1)), Half((8, 8, 1))
    >>> detection = klip_jax.detect(y, scanner, 0.1, denoise, key=jax.random.key(0))
    >>> detection.heatmap.shape
    (8, 8)

    Args:
      y: measurements [operator.out_shape], in the operator's unit.
      operator: the scanner, e.g. `operators.ct.ParallelBeam`.
      noise_std: standard deviation of the noise in y, > 0, per real component: one
        number, or one a measurement.
      prior: a denoiser of images in [0, 1], e.g. from `load_prior`, or any function
        that denoises (`prior`).
      key: a `jax.random.key`; split into that of the posterior samples and that of the
        detector.
      detector: what looks at the samples and judges.
      posterior_sampler: how the samples are drawn.
      eligible: where an anomaly could be, for detectors that ask.

    Returns:
      A `Detection`: of KLIP score and stderr of a block, heatmap [H, W] by pixel; in
      nats with a true likelihood score and no filter weight.

    Raises:
      TypeError: if operator or prior is not one, saying what is missing.
      ValueError: if y has another shape or is not finite, noise_std is not positive, or
        `jit` cannot take the operator or the prior.
    """
    prior = as_prior(prior)
    scan = _checked_scan(y, operator, noise_std)
    given = key, scan, prior, detector, posterior_sampler, eligible
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
        return _look_and_judge(*given)[0]
    detection, misfit = _jitted(*given)
    if not misfit <= LARGE_MISFIT:
        warnings.warn(
            f"the posterior samples miss the measurements by {float(misfit):.3g} times "
            "the variance of the noise, where 1 is right: the score says nothing of "
            "the image; check operator, noise_std and the range of the prior",
            stacklevel=2,
        )
    elif not _is_finite(detection):
        warnings.warn(
            f"{type(detector).__name__} gives no finite score and map, though the "
            "posterior samples fit: it broke in the detector itself",
            stacklevel=2,
        )
    return detection


def _is_finite(detection: Detection) -> bool:
    heatmap = detection.heatmap
    whole = heatmap is None or bool(np.isfinite(heatmap).all())
    return whole and bool(np.isfinite(detection.score))


def _look_and_judge(key, scan, prior, detector, posterior_sampler, eligible):
    key_samples, key_look = jax.random.split(key)
    posterior = posterior_sampler(key_samples, scan, prior)
    given = Given(prior, scan, posterior, eligible=eligible)
    return detector.judge(detector.look(key_look, given)), posterior.misfit


_jitted = jax.jit(_look_and_judge)


def _checked_scan(y: ArrayLike, operator: Any, noise_std: ArrayLike) -> Scan:
    name = getattr(operator, "__name__", type(operator).__name__)
    if isinstance(operator, type) or not callable(operator):
        raise TypeError(f"{name} is no operator: give an object that maps x to y")
    if not hasattr(operator, "solve_gram"):
        raise TypeError(
            f"{name} has no adjoint and no solve_gram: write it as a subclass of "
            "klip_jax.operators.base.Operator, whose __init__ sets in_shape and "
            "out_shape and whose __call__ applies A"
        )
    check_jittable(operator, name)
    y, noise_std = jnp.asarray(y), jnp.asarray(noise_std, float)
    if y.shape != tuple(operator.out_shape):
        raise ValueError(
            f"y has shape {y.shape}, but {name} measures {operator.out_shape}; check "
            "the geometry"
        )
    if noise_std.shape not in ((), y.shape):
        raise ValueError(
            f"noise_std has shape {noise_std.shape}: give one number, or one a "
            f"measurement, {y.shape}"
        )
    if not isinstance(y, Tracer) and not np.isfinite(y).all():
        raise ValueError("y holds values that are NaN or infinite")
    if not isinstance(noise_std, Tracer) and not (noise_std > 0).all():
        raise ValueError(
            f"noise_std={noise_std}: must be positive; the KL diverges at 0"
        )
    return Scan(operator, y, noise_std)
