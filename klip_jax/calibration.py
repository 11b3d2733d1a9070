"""The prior-predictive reference: what to expect when nothing is wrong.

Raw KLIP is not an anomaly score: its mean over healthy images is the information
I(x; y). So draw x from the model itself, measure it with the same operator and noise,
and run the SAME estimator: the law of the image score gives a p-value, the law of each
block its usual value. No data is needed, but the law is the MODEL's: with a wrong prior
the false-alarm rate is wrong too (theory: 34-87 % instead of 5 %), the ranking is not.

A trained prior errs less on its own draws, as on the images it learned, than on others,
and the maps are squares of such errors. So the law is multiplied by the ratio of the
two, which the weights' record tells (`error_ratio`): healthy images of new patients
would be flagged several times too often without it.

The draws are split in half: the first gives each block position its mean and spread,
the second the law of the score, so that no draw is judged by itself.

Reference: Nott et al. 2016 (prior-data conflict by prior-to-posterior divergence).
"""

import hashlib
import io
import json
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from klip_jax import checkpoint, kl, sde
from klip_jax.guidance.base import NoMeasurement
from klip_jax.sample import sample
from klip_jax.samplers.heun import heun
from klip_jax.types import Denoiser, LinearOperator


class ReferenceLaw(NamedTuple):
    """Scores and block maps of M draws of the model.

    Attributes:
      scores: [M] image scores, in the order of the draws.
      block_maps: [M, H/b, W/b] the chosen block map of each.
      fingerprint: of prior, operator, noise and estimator; see `fingerprint`.
    """

    scores: np.ndarray
    block_maps: np.ndarray
    fingerprint: str


def prior_draw(
    key: Array,
    prior: Denoiser,
    shape: tuple[int, ...],
    *,
    steps: int = 25,
    sigma_min: float = 0.01,
    sigma_max: float = 20.0,
) -> Array:
    """Draw an image [H, W, C] from the prior by Heun's method. Pure: jit it.

    The chain starts around the prior's mean, x = s z + D(s z, s) at the highest level
    s: the probability flow never forgets where it started. On a smooth Gaussian 25
    steps lose 0.5 % of the variance, 50 ancestral ones, which cost as much, 13 %.

    Args:
      key: of the draw.
      prior: a denoiser.
      shape: (H, W, C).
      steps: noise levels, each two network calls.
      sigma_min, sigma_max: the lowest and highest of them, image units.
    """
    sigmas = sde.karras_levels(steps, sigma_min, sigma_max)
    sampler = heun()
    x = sampler.init(key, shape, sigmas[0])
    x = x + prior(x, sigmas[0])
    return sample(key, sampler, prior, NoMeasurement(), sigmas, shape, start=x).x


def prior_predictive(
    key: Array,
    operator: LinearOperator,
    noise_std: Array,
    prior: Denoiser,
    *,
    steps: int = 25,
) -> tuple[Array, Array]:
    """Draw x from the prior and y = A x + n. Pure: jit it.

    Args:
      key: of the draw.
      operator: A.
      noise_std: of y, scalar.
      prior: a denoiser.
      steps: of `prior_draw`.

    Returns:
      (x [H, W, C], y [operator.out_shape]).
    """
    key_x, key_n = jax.random.split(key)
    x = prior_draw(key_x, prior, operator.in_shape, steps=steps)
    noise = jax.random.normal(key_n, operator.out_shape)
    return x, operator(x) + noise_std * noise


def p_value(score: float, law: np.ndarray) -> float:
    """Return (1 + #{law >= score}) / (M + 1), the chance of so large a score.

    Args:
      score: of the image; a NaN gives NaN.
      law: [M] scores of draws that nothing else was fitted on.
    """
    if np.isnan(score):
        return float("nan")
    return float((1 + np.sum(np.asarray(law) >= score)) / (len(law) + 1))


def error_ratio(record: Mapping[str, Any], window: tuple[float, float]) -> float:
    """Return how much larger a prior's squared error is on images it has not seen.

    int E_test|x - D(x_s)|^2 / s^2 d ln s over int E_train|x - D(x_s)|^2 / s^2 d ln s,
    from (lowest, highest) s of the window, log-linear between the recorded levels.

    Args:
      record: of the weights; its "errors" hold "levels", "train" and "test" [K].
      window: of the estimator, image units.

    Returns:
      The ratio; 1 if the record does not tell both errors.

    Raises:
      ValueError: if an error is not a positive number.
    """
    names = "levels", "train", "test"
    if not set(names) <= set(record.get("errors", ())):
        return 1.0
    known, *errors = (np.asarray(record["errors"][name], float) for name in names)
    if not all(np.all((e > 0) & np.isfinite(e)) for e in (known, *errors)):
        raise ValueError("the weights' record: errors must be positive numbers")
    levels = np.log(np.geomspace(*window, 32))
    train, test = (
        np.sum(np.exp(np.interp(levels, np.log(known), np.log(e)) - 2 * levels))
        for e in errors
    )
    return float(test / train)


def scaled(law: ReferenceLaw, ratio: float) -> ReferenceLaw:
    """Return the law of scores and maps that are `ratio` times as large."""
    return law._replace(scores=law.scores * ratio, block_maps=law.block_maps * ratio)


def position_law(law: ReferenceLaw) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each block [H/b, W/b], by the first half.

    Right for images aligned to pixels only: on anatomy, which is not, it removes
    nothing and adds noise.
    """
    maps = law.block_maps[: len(law.block_maps) // 2]
    return maps.mean(0), maps.std(0, ddof=1)


def score_law(
    law: ReferenceLaw, top: float, position: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """Return the scores to compare an image with.

    Args:
      law: the reference law.
      top: share of the largest blocks that make the score; see `kl.top_mean`.
      position: of `position_law`, None if blocks are not standardised.

    Returns:
      All M scores, or those of the half that `position` was not fitted on.
    """
    if position is None:
        return law.scores
    held_out = law.block_maps[len(law.block_maps) // 2 :]
    mean, spread = position
    return np.array([kl.top_mean((m - mean) / spread, top) for m in held_out])


def fingerprint(prior: Any, description: dict) -> str:
    """Return a SHA-256 over the prior's arrays and a description of the rest.

    Two runs share a reference law only if prior, operator, noise and estimator agree in
    every number. Operators enter by name and settings, not by their arrays: those may
    differ in the last digit between machines.

    Args:
      prior: a pytree; its arrays enter by value, shape and type.
      description: JSON-serialisable settings.
    """
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(prior):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_law(path, law: ReferenceLaw) -> None:
    """Write `law` to one .npz, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        scores=law.scores.astype(np.float32),
        block_maps=law.block_maps.astype(np.float32),
        fingerprint=np.frombuffer(law.fingerprint.encode(), np.uint8),
    )
    checkpoint.write_atomically(path, buffer.getvalue())


def load_law(path) -> ReferenceLaw | None:
    """Read a law; None if there is no file.

    Raises:
      ValueError: if the file is not a whole reference law.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return None
    broken = (ValueError, KeyError, TypeError, OSError, EOFError)
    try:
        with np.load(path, allow_pickle=False) as archive:
            text = archive["fingerprint"].tobytes().decode()
            return ReferenceLaw(archive["scores"], archive["block_maps"], text)
    except (*broken, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: not a whole reference law ({error}); delete it, it is remade"
        ) from None
