"""A reference law on disk: scores of draws of the model, and which model and scan.

A law ships with weights. It fits a run if prior, operator, noise and detector have the
same `fingerprint`; of any other the p-values would be wrong, and nobody would see it.
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
    """Scores of draws of the model, which `calibration.p_value` compares with.

    Finite or refused: of NaN no score is ever larger, every image would be significant.

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
        with np.load(path, allow_pickle=False) as arrays:
            names, prints = (
                [str(text) for text in arrays[key]] for key in ("names", "fingerprints")
            )
            scores = {name: arrays[f"scores_{i}"] for i, name in enumerate(names)}
        return Law(scores, dict(zip(names, prints, strict=True)))
    except (ValueError, *broken) as error:
        raise ValueError(
            f"{path}: not a whole reference law ({error}); delete it, it is remade"
        ) from None
