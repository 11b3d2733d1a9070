"""The reference law of any score: what to expect when nothing is wrong.

Raw KLIP is not an anomaly score: its mean over healthy images is the information
I(x; y). So draw x from the model itself, measure it with the same operator and noise,
and run the SAME detector: the law of the score gives a p-value. No data is needed, but
the law is the MODEL's: with a wrong prior the false-alarm rate is wrong too (theory:
34-87 % instead of 5 %), the ranking is not. Where healthy images are at hand, the
split-conformal p-value stands beside it, whose false-alarm rate holds whatever the
prior is.

A trained prior errs less on its own draws, as on the images it learned, than on others,
and some scores are squares of such errors. Their law is multiplied by the ratio of the
two, which the weights' record tells (`error_ratio`): healthy images of new patients
would be flagged several times too often without it.

A detector that is fitted is judged on draws it was not fitted on.

Reference: Nott et al. 2016 (prior-data conflict by prior-to-posterior divergence); Vovk
et al. 2005 (conformal prediction); docs/theory.md, section 10.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from klip_jax import sde
from klip_jax.files import write_atomically
from klip_jax.guidance.none import NoGuidance
from klip_jax.sample import sample
from klip_jax.samplers.heun import Heun
from klip_jax.scan import simulate
from klip_jax.types import Denoiser, Image, LinearOperator, PRNGKey, Scalar, Scan

_LARGEST = 2**28  # bytes that a law may take in memory


def prior_draw(
    key: PRNGKey,
    prior: Denoiser,
    shape: tuple[int, ...],
    *,
    steps: int = 25,
    sigma_min: float = 0.01,
    sigma_max: float = 20.0,
) -> Image:
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
    sampler = Heun()
    x = sampler.init(key, shape, sigmas[0])
    x = x + prior(x, sigmas[0])
    return sample(key, sampler, prior, sigmas, shape, start=x, guidance=NoGuidance()).x


def prior_predictive(
    key: PRNGKey,
    operator: LinearOperator,
    noise_std: Float[jax.Array, "..."] | float,
    prior: Denoiser,
    *,
    steps: int = 25,
) -> tuple[Image, Scan]:
    """Draw x from the prior and measure it, y = A x + n. Pure: jit it.

    Args:
      key: of the draw.
      operator: A.
      noise_std: of y, one number or one a measurement.
      prior: a denoiser.
      steps: of `prior_draw`.

    Returns:
      (x [H, W, C], what was measured of it).
    """
    key_x, key_n = jax.random.split(key)
    x = prior_draw(key_x, prior, operator.in_shape, steps=steps)
    return x, simulate(key_n, operator, x, noise_std)


def p_value(
    score: Float[Any, "*n"] | float, law: Float[Any, " m"]
) -> Float[np.ndarray, "*n"]:
    """Return (1 + #{law >= score}) / (M + 1), the chance of so large a score.

    Args:
      score: of an image, or of many.
      law: scores of M draws of the model, none of which was used to fit anything.

    Returns:
      One p-value a score, in [1 / (M + 1), 1]. NaN where the score is not finite, and
      everywhere if the law is empty or holds what is not finite: nothing that failed is
      ever significant.
    """
    score, law = np.asarray(score, np.float64), np.asarray(law, np.float64)
    below = np.searchsorted(np.sort(law), score, side="left")
    p = (1 + len(law) - below) / (len(law) + 1)
    known = np.isfinite(score) & np.isfinite(law).all() & (len(law) > 0)
    return np.where(known, p, np.nan)


def conformal_p_value(
    score: Float[Any, "*n"] | float, healthy: Float[Any, " m"]
) -> Float[np.ndarray, "*n"]:
    """Return (1 + #{healthy >= score}) / (n + 1), the split-conformal p-value.

    If the image is exchangeable with the n healthy ones, P(p <= a) <= a for every a,
    whatever prior and detector are: a false-alarm rate without a model.

    Args:
      score: of an image, or of many.
      healthy: scores of n healthy images that the detector was not fitted on.

    Returns:
      One p-value a score; NaN as in `p_value`.

    Reference: Vovk et al. 2005, section 2.2; Bates et al. 2023 (outliers).
    """
    return p_value(score, healthy)


def error_ratio(record: Mapping[str, Any], window: tuple[Scalar, Scalar]) -> float:
    """Return how much larger a prior's squared error is on images it has not seen.

    int E_test|x - D(x_s)|^2 / s^2 d ln s over int E_train|x - D(x_s)|^2 / s^2 d ln s,
    from (lowest, highest) s of the window, log-linear between the recorded levels.

    Args:
      record: of the weights; its "errors" hold "levels", "train" and "test" [K].
      window: of the detector, image units.

    Returns:
      The ratio; 1 if the record does not tell both errors.

    Raises:
      ValueError: if an error is not a positive number, or they are not one a level.
    """
    names, table = ("levels", "train", "test"), record.get("errors")
    if not isinstance(table, Mapping) or not set(names) <= set(table):
        return 1.0
    known, *errors = (np.asarray(table[name], np.float64) for name in names)
    if not all(np.all((e > 0) & np.isfinite(e)) for e in (known, *errors)):
        raise ValueError("the weights' record: errors must be positive numbers")
    if any(e.shape != known.shape or e.ndim != 1 for e in (known, *errors)):
        raise ValueError("the weights' record: there must be one error a level")
    low, high = (float(s) for s in window)
    levels = np.log(np.geomspace(low, high, 32))
    train, test = (
        np.sum(np.exp(np.interp(levels, np.log(known), np.log(e)) - 2 * levels))
        for e in errors
    )
    return float(test / train)


def fingerprint(prior: Any, description: Mapping[str, Any]) -> str:
    """Return a SHA-256 over the prior's arrays and a description of the rest.

    Two runs share a reference law only if prior, operator, noise and detector agree in
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


@dataclasses.dataclass(frozen=True)
class Law:
    """Scores of draws of the model, which `p_value` compares with.

    It is finite or it is refused: of NaN no score is ever larger, so every image would
    be significant.

    Attributes:
      scores: {detector: [M] float32}, finite, in the order of the draws.
      fingerprints: {detector: `fingerprint` of prior, operator, noise and
        its settings}.

    Raises:
      ValueError: naming the detector whose scores are not a row of finite numbers, or
        that has no fingerprint.
    """

    scores: Mapping[str, np.ndarray]
    fingerprints: Mapping[str, str]

    def __post_init__(self):
        if self.scores.keys() != self.fingerprints.keys():
            differ = sorted(self.scores.keys() ^ self.fingerprints.keys())
            raise ValueError(f"law: scores or fingerprint of {differ} are missing")
        for name, scores in self.scores.items():
            if scores.ndim != 1 or scores.dtype.kind != "f" or not len(scores):
                raise ValueError(
                    f"law: the scores of {name!r} are {scores.dtype} "
                    f"{scores.shape}; they must be a row of one number a draw"
                )
            bad = int(np.sum(~np.isfinite(scores)))
            if bad:
                raise ValueError(
                    f"law: {bad} of {len(scores)} scores of {name!r} are NaN or "
                    "infinite; calibrate again"
                )


def save_law(path: str | Path, law: Law) -> None:
    """Write `law` to one .npz without pickles, atomically.

    Its arrays: "names" and "fingerprints" [D], "scores_0" .. [M] in their order.
    """
    names = list(law.scores)
    arrays = {f"scores_{i}": np.float32(law.scores[n]) for i, n in enumerate(names)}
    prints = [law.fingerprints[name] for name in names]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        allow_pickle=False,
        names=np.array(names, np.str_),
        fingerprints=np.array(prints, np.str_),
        **arrays,
    )
    write_atomically(path, buffer.getvalue())


def load_law(path: str | Path) -> Law:
    """Read a law.

    Raises:
      ValueError: if there is no file, if it is not a whole law, or if a score is not
        finite; it names the file and the detector.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such law")
    broken = (KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _LARGEST:
            raise ValueError(f"it would take {size} bytes")
        with np.load(path, allow_pickle=False) as found:
            names, prints = (
                [str(text) for text in found[key]] for key in ("names", "fingerprints")
            )
            scores = {name: found[f"scores_{i}"] for i, name in enumerate(names)}
        return Law(scores, dict(zip(names, prints, strict=True)))
    except (ValueError, *broken) as error:
        raise ValueError(
            f"{path}: not a whole reference law ({error}); delete it, it is remade"
        ) from None
