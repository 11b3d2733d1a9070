"""A reference law on disk: scores of healthy images and of draws of the model.

A law ships with weights, for a scan. Its healthy images are of the prior's own data,
but neither trained on nor in a test set; the draws need no image. Either fits a run if
prior, operator, noise and detector have the same `fingerprint`; of any other the
p-values would be wrong, and nobody would see it.
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

from klip_jax.files import write_atomically

_LARGEST = 2**28  # bytes that a law may take in memory


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
    """Scores of draws and of healthy images, which `calibration` compares with.

    Finite or refused: of NaN no score is ever larger, every image would be significant.

    Attributes:
      scores: {detector: [M] float32} of draws of the model, in their order.
      fingerprints: {detector: `fingerprint` of prior, operator, noise, its settings
        and how draws are made}.
      healthy: {detector: [n] float32} of healthy images, in their order.
      healthy_fingerprints: {detector: the same without how draws are made}.
      patients: how many the healthy images are of; 0 if that is not known.

    Raises:
      ValueError: naming the detector whose scores are not a row of finite numbers, or
        that has no fingerprint.
    """

    scores: Mapping[str, np.ndarray]
    fingerprints: Mapping[str, str]
    healthy: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    healthy_fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    patients: int = 0

    def __post_init__(self):
        _check(self.scores, self.fingerprints)
        _check(self.healthy, self.healthy_fingerprints)


def _check(scores_of, prints):
    if scores_of.keys() != prints.keys():
        differ = sorted(scores_of.keys() ^ prints.keys())
        raise ValueError(f"law: scores or fingerprint of {differ} are missing")
    for name, scores in scores_of.items():
        if scores.ndim != 1 or scores.dtype.kind != "f" or not len(scores):
            raise ValueError(
                f"law: the scores of {name!r} are {scores.dtype} "
                f"{scores.shape}; they must be a row of one number an image"
            )
        bad = int(np.sum(~np.isfinite(scores)))
        if bad:
            raise ValueError(
                f"law: {bad} of {len(scores)} scores of {name!r} are NaN or "
                "infinite; calibrate again"
            )


def save_law(path: str | Path, law: Law) -> None:
    """Write `law` to one .npz without pickles, atomically.

    Its arrays: "names" and "fingerprints" [D], "scores_0" .. [M] in their order; for
    healthy images "healthy_names", "healthy_fingerprints", "healthy_0" .., "patients".
    """
    arrays = _arrays("", "scores", law.scores, law.fingerprints)
    if law.healthy:
        arrays |= _arrays("healthy_", "healthy", law.healthy, law.healthy_fingerprints)
        arrays["patients"] = np.int64(law.patients)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
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
        with np.load(path, allow_pickle=False) as arrays:
            draws = _parts(arrays, "", "scores")
            if "healthy_names" not in arrays:
                return Law(*draws)
            healthy = _parts(arrays, "healthy_", "healthy")
            return Law(*draws, *healthy, int(arrays["patients"]))
    except (ValueError, *broken) as error:
        raise ValueError(
            f"{path}: not a whole reference law ({error}); delete it, it is remade"
        ) from None


def _arrays(start, kind, scores, prints) -> dict[str, Any]:
    names = list(scores)
    arrays = {f"{kind}_{i}": np.float32(scores[name]) for i, name in enumerate(names)}
    return arrays | {
        f"{start}names": np.array(names, np.str_),
        f"{start}fingerprints": np.array([prints[name] for name in names], np.str_),
    }


def _parts(arrays, start, kind) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    keys = f"{start}names", f"{start}fingerprints"
    names, prints = ([str(text) for text in arrays[key]] for key in keys)
    scores = {name: arrays[f"{kind}_{i}"] for i, name in enumerate(names)}
    return scores, dict(zip(names, prints, strict=True))
