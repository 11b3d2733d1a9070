"""Score one measurement: what is checked before, and warned of after, is here.

`detect` checks values on the host and compiles once for all images of one shape, all
windows and all widths; inside `jit` or `vmap` it computes the same without checks. Its
random streams are those of a run, so that the same key gives the same number as the
command line.

Reference: docs/theory.md, sections 5 to 7 and 10.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

from klip_jax import keys
from klip_jax.calibration import FITS
from klip_jax.detectors.klip import KLIP
from klip_jax.posterior import PosteriorSampler
from klip_jax.priors.function import check_jittable
from klip_jax.priors.function import prior as as_prior
from klip_jax.result import Result
from klip_jax.spelling import snake
from klip_jax.types import Detection, Detector, Given, Mask, PRNGKey, Scan

DETECTOR, POSTERIOR = KLIP(), PosteriorSampler()
_FAR = 3.0
"""y this many times beyond what images give, or below it, has another unit."""


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """All that `detect` needs besides y: a prior, and the scan it was calibrated for.

    Attributes:
      prior: a denoiser.
      operator, noise_std: the scanner.
      detector, name: what looks, and how it is called in a run.
      posterior_sampler: how the samples are drawn.
      law, law_of: scores [M] that p-values are under, and what of; [0] without.
      settings: the same as names and numbers, as in a config.
      record: what the weights say of themselves.
    """

    prior: Any
    operator: Any
    noise_std: float
    detector: Detector
    name: str
    posterior_sampler: PosteriorSampler
    law: np.ndarray
    law_of: str
    settings: Mapping[str, Any]
    record: Mapping[str, Any]

    def key(self, name: str) -> PRNGKey:
        """Return the key that a run gives the image of this name."""
        return keys.image_keys(self.settings["seed"], [name])[0]


def detect(
    y: ArrayLike,
    operator: Any,
    noise_std: ArrayLike | None = None,
    prior: Any = None,
    *,
    key: Any,
    detector: Detector | None = None,
    posterior_sampler: PosteriorSampler | None = None,
    eligible: Mask | None = None,
    law: ArrayLike | None = None,
) -> Result:
    """Score one measurement: how far did y pull the posterior, and where?

    >>> import jax, jax.numpy as jnp
    >>> import klip_jax
    >>> from klip_jax.operators.mask import Half
    >>> def denoise(x, sigma):  # E[x0 | x] for white pixels, N(1/2, 1/4)
    ...     return (x + 2 * sigma**2) / (1 + 4 * sigma**2)
    >>> y, scanner = jnp.ones((32, 1)), Half((8, 8, 1))
    >>> result = klip_jax.detect(y, scanner, 0.1, denoise, key=0)  # a klip_jax.Result
    >>> result.heatmap.shape, result.verdict
    ((8, 8), 'no law')

    Args:
      y: measurements [operator.out_shape], in the operator's unit.
      operator: the scanner, e.g. `operators.ct.ParallelBeam`; or a `Setup`, of `load`,
        which holds all that follows.
      noise_std: standard deviation of the noise in y, > 0, per real component: one
        number, or one a measurement.
      prior: a denoiser of images in [0, 1], e.g. from `load_prior`, or any function
        that denoises (`prior`).
      key: a `jax.random.key`, or a whole number, which is its seed.
      detector: what looks at the samples and judges; by default `KLIP()`.
      posterior_sampler: how the samples are drawn.
      eligible: where an anomaly could be, for detectors that ask.
      law: scores [M] of this detector on draws of the model, for the p-value.

    Returns:
      A `Result`: of KLIP score and stderr of a block, heatmap [H, W] by pixel; in nats
      with a true likelihood score and no filter weight.

    Raises:
      TypeError: if operator, prior, y or key is not one, saying what is missing.
      ValueError: if y has another shape or is not finite, noise_std is not positive, or
        `jit` cannot take the operator or the prior.
    """
    name, law_of = None, "scores"
    if isinstance(operator, Setup):
        setup = operator
        if noise_std is not None or prior is not None:
            raise TypeError("a Setup has its own noise_std and prior: give y and key")
        operator, noise_std, prior = setup.operator, setup.noise_std, setup.prior
        own = detector is None and posterior_sampler is None
        if law is None and own:
            law, law_of = setup.law, setup.law_of
        name = setup.name if detector is None else None
        detector = setup.detector if detector is None else detector
        posterior_sampler = posterior_sampler or setup.posterior_sampler
    if noise_std is None or prior is None:
        raise TypeError("give detect(y, operator, noise_std, prior), or a Setup")
    detector, posterior_sampler = detector or DETECTOR, posterior_sampler or POSTERIOR
    law = np.zeros(0, np.float32) if law is None else np.asarray(law)
    scan = _checked_scan(y, operator, noise_std)
    said = f"{len(law)} {law_of}" if len(law) else ""
    words = keys.words(name or snake(type(detector).__name__))
    given = (
        *(_key(key), scan, as_prior(prior), detector, posterior_sampler, eligible),
        *(words, jnp.asarray(law, jnp.float32)),
    )
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
        return dataclasses.replace(_look_and_judge(*given), law=said)
    result = dataclasses.replace(_jitted(*given), law=said)
    if not result.misfit <= FITS[1]:
        warnings.warn(
            "the posterior samples miss the measurements by "
            f"{float(result.misfit):.3g} times the variance of the noise, where 1 is "
            "right: the score says nothing of the image; check operator, noise_std "
            f"and the range of the prior{_of_unit(scan)}",
            stacklevel=2,
        )
    elif not _is_finite(result):
        warnings.warn(
            f"{type(detector).__name__} gives no finite score and map, though the "
            "posterior samples fit: it broke in the detector itself",
            stacklevel=2,
        )
    return result


def _is_finite(result: Result) -> bool:
    heatmap = result.heatmap
    whole = heatmap is None or bool(np.isfinite(heatmap).all())
    return whole and bool(np.isfinite(result.score))


def _look_and_judge(
    key, scan, prior, detector, posterior_sampler, eligible, words, law
) -> Result:
    key_samples = jax.random.fold_in(key, keys.POSTERIOR)
    key_look = keys.folded(jax.random.fold_in(key, keys.DETECTOR), words)
    posterior = posterior_sampler(key_samples, scan, prior)
    given = Given(prior, scan, posterior, eligible=eligible)
    detection: Detection = detector.judge(detector.look(key_look, given))
    return Result(
        detection.score,
        detection.stderr,
        detection.heatmap,
        _p_value(detection.score, law),
        posterior.misfit,
        posterior.mean,
        posterior.std,
    )


def _p_value(score, law):
    """Return `calibration.p_value`, traced."""
    p = (1 + jnp.sum(law >= score)) / (len(law) + 1)
    known = jnp.isfinite(score) & jnp.isfinite(law).all() & (len(law) > 0)
    return jnp.where(known, p, jnp.nan)


_jitted = jax.jit(_look_and_judge)


def _key(key: Any) -> Any:
    """Return a key of `jax.random.key`, of a seed, or of an array of the old kind."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(key)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32:
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise TypeError(
        f"key={key!r}: give a jax.random.key, or a whole number as its seed"
    )


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
    y, noise_std = _measured(y, operator, name), jnp.asarray(noise_std, float)
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


def _measured(y: Any, operator: Any, name: str) -> jax.Array:
    """Return y in the operator's type: whole numbers are numbers, complex stays so."""
    y = y if isinstance(y, jax.Array) else np.asarray(y)
    kind = np.dtype(operator.out_dtype).kind
    if y.dtype.kind not in "iufcb" and y.dtype != jnp.bfloat16:
        raise TypeError(f"y holds {y.dtype}, where measurements are numbers")
    if y.dtype.kind == "c" and kind != "c":
        raise TypeError(
            f"y is complex, but {name} measures real numbers: take what it measures, "
            "such as y.real, or an operator of complex data, such as those of "
            "operators.mri"
        )
    if y.dtype.kind == kind:
        return jnp.asarray(y)
    return jnp.asarray(y, operator.out_dtype)


def _of_unit(scan: Scan) -> str:
    """Say if y lies far outside of what images in [0, 1] give."""
    highest = float(jnp.abs(scan.operator(jnp.ones(scan.operator.in_shape))).max())
    reached = float(jnp.abs(scan.y).max())
    if highest / _FAR <= reached <= highest * _FAR or not highest:
        return ""
    return (
        f"; y reaches {reached:.3g}, where this operator gives an image of ones "
        f"{highest:.3g}: y may be in another unit"
    )
