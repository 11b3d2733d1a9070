"""The workdir of a run: one file an image, everything else made from these files.

    maps/<image_id>.npz   all that is known of one image, its scalars included
    scores.csv            one line an image, the scalars of the npz files
    metrics.json          what `metrics.evaluate` found

An image is finished when its npz exists: it is written whole or not at all, and last,
so a killed run goes on with the images that `finished` does not list. The csv can be
made again at any time.
"""

import csv
import io
import json
import pathlib
import re
import zipfile
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from klip_jax.checkpoint import write_atomically
from klip_jax.data.base import natural

COLUMNS = (
    "image_id",
    "group",
    "score",
    "stderr",
    "p_value",
    "network_calls",
    "seconds",
    "first_bad_step",
)
REQUIRED = ("heatmap", "levels", "blocks", "mean", "std", "naive")
IMAGES = ("mean", "std", "naive", "truth")
REGIONS = ("mask", "eligible", "body")
MAP = "control_"
SCORE = "control_score_"

_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, KeyError)


class ImageResult(NamedTuple):
    """What a run found in one image.

    Attributes:
      image_id: unique, safe as a file name.
      group: "id" is in-distribution, "" is unknown, every other name is anomalous.
      score: the image's score, bigger is more out-of-distribution; NaN if it failed.
      stderr: Monte Carlo standard error of `score`.
      p_value: under the reference law of the model, NaN without one.
      network_calls: evaluations of the prior.
      seconds: wall time.
      first_bad_step: first sampler step that was not finite, -1 if none.
      arrays: float32 or bool arrays by name. Always `heatmap` [H, W]; `levels` [K] and
        `blocks` [K, 3, H/b, W/b], the integrand by level (`kl.MAPS`, nats); `mean` and
        `std` of the reconstruction and the `naive` inversion [H, W, C]. Controls:
        `control_<name>` [H, W] and `control_score_<name>` [], bigger is more
        out-of-distribution. Where known: `misfit` [], see `klip.Estimate`; `truth`
        [H, W, C]; `mask` (the anomaly), `eligible` and `body` [H, W]; `patient`, a
        string array [].
    """

    image_id: str
    group: str
    score: float
    stderr: float
    p_value: float
    network_calls: int
    seconds: float
    first_bad_step: int
    arrays: dict[str, np.ndarray]


def check_image_id(image_id: str) -> str:
    """Return `image_id`; ValueError unless it is safe as a file name."""
    if not _SAFE.fullmatch(image_id):
        raise ValueError(
            f"image id {image_id!r}: use 1 to 200 of A-Z a-z 0-9 . _ - and no dot first"
        )
    return image_id


def map_controls(result: ImageResult) -> dict[str, np.ndarray]:
    """Return the control maps [H, W] of `result` by name."""
    return {
        key.removeprefix(MAP): value
        for key, value in result.arrays.items()
        if key.startswith(MAP) and not key.startswith(SCORE)
    }


def score_controls(result: ImageResult) -> dict[str, float]:
    """Return the scores of the controls of `result` by name."""
    return {
        key.removeprefix(SCORE): float(value)
        for key, value in result.arrays.items()
        if key.startswith(SCORE)
    }


def finished(workdir) -> set[str]:
    """Return the ids of the images that `workdir` holds."""
    return {path.stem for path in _paths(workdir)}


def write_image(workdir, result: ImageResult) -> None:
    """Write maps/<image_id>.npz, whole or not at all; an older one is replaced.

    Raises:
      ValueError: if the id is unsafe, or an array is missing, of another shape than the
        heat map, or neither number, bool nor string.
    """
    check_image_id(result.image_id)
    arrays = {name: _storable(name, a) for name, a in result.arrays.items()}
    _check_arrays(f"image {result.image_id}", arrays)
    scalars = {name: np.array(getattr(result, name)) for name in COLUMNS}
    file = io.BytesIO()
    np.savez_compressed(file, **scalars, **arrays)
    write_atomically(_folder(workdir) / f"{result.image_id}.npz", file.getvalue())


def read_images(workdir, names: Iterable[str] | None = None) -> list[ImageResult]:
    """Read the images of `workdir`, sorted by id in natural order (2 before 10).

    Args:
      workdir: folder of the run; one without images gives an empty list.
      names: arrays to load, those that an image has; None is all, () the scalars only.

    Raises:
      ValueError: if a file is not a whole npz of `write_image`; names the file.
    """
    names = None if names is None else frozenset(names)
    return [_read(path, names) for path in _paths(workdir)]


def write_scores(workdir) -> None:
    """Write scores.csv from the images, atomically; floats survive the round trip."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(result[: len(COLUMNS)] for result in read_images(workdir, ()))
    write_atomically(pathlib.Path(workdir) / "scores.csv", text.getvalue().encode())


def write_metrics(workdir, metrics: dict) -> None:
    """Write metrics.json, atomically; ValueError if a number is not finite."""
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    write_atomically(pathlib.Path(workdir) / "metrics.json", text.encode())


def read_metrics(workdir) -> dict:
    """Read metrics.json; ValueError naming the file if it is absent or broken."""
    path = pathlib.Path(workdir) / "metrics.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable metrics file ({error})") from None


def _folder(workdir):
    return pathlib.Path(workdir) / "maps"


def _paths(workdir):
    paths = (p for p in _folder(workdir).glob("*.npz") if not p.name.startswith("."))
    return sorted(paths, key=lambda path: natural(path.stem))


def _storable(name, array):
    array = np.asarray(array)
    if array.dtype.kind in "bU":
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"array {name!r} is {array.dtype}; need number, bool or string"
        )
    return array.astype(np.float32)


def _check_arrays(where, arrays):
    for name in REQUIRED:
        if name not in arrays:
            raise ValueError(f"{where}: no array {name!r}; need {', '.join(REQUIRED)}")
    if clash := sorted(arrays.keys() & set(COLUMNS)):
        raise ValueError(f"{where}: {clash} name scalars; rename these arrays")
    sides = arrays["heatmap"].shape
    if len(sides) != 2:
        raise ValueError(f"{where}: heatmap is {list(sides)}, it must be [H, W]")
    for name, array in arrays.items():
        found = array.shape
        if name in IMAGES:
            fits = len(found) == 3 and found[:2] == sides
        elif name in REGIONS or (name.startswith(MAP) and not name.startswith(SCORE)):
            fits = found == sides
        else:
            fits = found == () or not (name.startswith(SCORE) or name == "patient")
        if not fits:
            raise ValueError(
                f"{where}: {name} is {list(found)}, the heat map is {list(sides)}; "
                "maps are [H, W], images [H, W, C], scores and patient []"
            )
    levels, blocks = arrays["levels"], arrays["blocks"]
    if levels.ndim != 1 or blocks.ndim != 4 or blocks.shape[:2] != (levels.size, 3):
        raise ValueError(
            f"{where}: levels {list(levels.shape)} and blocks {list(blocks.shape)} "
            "must be [K] and [K, 3, H/b, W/b]"
        )


def _read(path, names):
    try:
        with np.load(path, allow_pickle=False) as file:
            scalars = {name: file[name].item() for name in COLUMNS}
            wanted = [n for n in file.files if n not in COLUMNS]
            arrays = {n: file[n] for n in wanted if names is None or n in names}
        if names is None:
            _check_arrays("its arrays", arrays)
        if scalars["image_id"] != path.stem:
            raise ValueError(f"it holds image {scalars['image_id']!r}")
    except (*_BROKEN, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path}: not a whole result of one image ({error}); delete it and run "
            "again, the other images stay"
        ) from None
    return ImageResult(**scalars, arrays=arrays)
