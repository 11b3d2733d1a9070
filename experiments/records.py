"""What every detector yields on every image of a benchmark, kept image by image."""

import csv
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import methods
import numpy as np
from absl import flags
from batches import over_images
from scipy.ndimage import binary_dilation, gaussian_filter

from klip_jax import calibration, kl, metrics, run
from klip_jax.build import build
from klip_jax.checkpoint import write_atomically
from klip_jax.data.base import ImageSet
from klip_jax.job import Job, prepare
from klip_jax.run_train import as_source

flags.DEFINE_list("only", [], "Compute only detectors whose names start with one.")
TEMPLATE = "control: position_template"
NUMBERS = ("localization", "score", "p_value", "pixels", "contrast")
FIELDS = ("image_id", "group", "patient", "method", *NUMBERS)


class Found(NamedTuple):
    """What all detectors yield on N images.

    Attributes:
      job: what they ran on.
      maps: {detector: [N, H, W]}.
      scores: {detector: [N]}; of detectors without one, it follows from the maps.
    """

    job: Job
    maps: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]


def collect(
    config: dict,
    folder: Path,
    *,
    fit: int,
    recompute: bool,
    simulator=None,
    released: bool = True,
):
    """Run every detector on every image.

    Args:
      config: of an experiment, as plain data.
      folder: where what one image yields is kept.
      fit: training images for the detectors that are fitted.
      recompute: sample again, whatever is kept.
      simulator: job -> what measures the images; None for the operator itself.
      released: run KLIP as released as well.

    Returns:
      A `Found`.
    """
    job = prepare(config, folder)
    images, block = job.images, job.estimator.block
    settings = dict(noise_std=job.noise_std, settings=job.estimator, released=released)
    only = tuple(flags.FLAGS.only)
    kept = job.folder / "-".join(("records", *only))
    measure = job.operator if simulator is None else simulator(job)

    def everything(*args):
        # What is not returned is not computed.
        maps, features = methods.record(*args, **settings)
        return _named(maps, only), _named(features, only)

    def to_fit(*args):
        features = everything(*args)[1]
        return {}, {k: v for k, v in features.items() if not k.startswith("KL")}

    def recorded(f, names, columns, desc):
        """Return (maps, features) of each image, computing what is not kept."""
        paths = [kept / f"{name}.npz" for name in names]
        todo = [i for i, path in enumerate(paths) if recompute or not path.is_file()]
        root = jax.random.key(0)
        keys = [jax.random.fold_in(root, zlib.crc32(names[i].encode())) for i in todo]
        rest = [[column[i] for i in todo] for column in columns]
        shared = job.prior, job.operator, measure
        found = over_images(f, shared, keys, *rest, desc=desc)
        for i, parts in zip(todo, found, strict=True):
            _write_record(paths[i], parts)
        return [_read_record(path) for path in paths]

    nowhere = np.zeros(job.operator.in_shape[:2], bool)
    own = training_images(job, fit)
    names = [f"fit_{i:04d}" for i in range(fit)]
    features = recorded(to_fit, names, (own, [nowhere] * fit), "training images")
    reference = {k: np.stack([f[k] for _, f in features]) for k in features[0][1]}
    eligible = images.eligible
    eligible = [nowhere] * len(images.ids) if eligible is None else eligible
    found = recorded(everything, images.ids, (images.images, eligible), "test images")
    maps = {k: np.stack([m[k] for m, _ in found]) for k in found[0][0]}
    features = {k: np.stack([f[k] for _, f in found]) for k in found[0][1]}
    more, scores = methods.fitted(reference, features, block)
    if images.masks is not None and methods.OURS in maps:
        is_id = np.array(images.groups) == "id"
        more[TEMPLATE] = metrics.position_template(maps[methods.OURS], is_id)
        scores[TEMPLATE] = np.zeros(len(is_id))  # it has not seen the image
    return Found(job, maps | more, scores)


def _named(found, starts):
    """Return what is found under names that start with one of `starts`, if any."""
    return {k: v for k, v in found.items() if not starts or k.startswith(starts)}


def _write_record(path, parts):
    buffer = io.BytesIO()
    np.savez(buffer, **{f"{i}/{k}": v for i in (0, 1) for k, v in parts[i].items()})
    write_atomically(path, buffer.getvalue())


def _read_record(path):
    parts = {}, {}
    with np.load(path, allow_pickle=False) as kept:
        for k in kept.files:
            parts[int(k[0])][k[2:]] = kept[k]
    return parts


def smoothed(found: Found, tuned: Mapping[str, float]) -> Found:
    """Add every detector whose map is better smoothed, under a name that says so.

    Args:
      found: of `collect`.
      tuned: {detector: standard deviation of the Gaussian, pixels}.
    """
    more = {
        f"{name}, smoothed {std:g}": smooth(found.maps[name], std)
        for name, std in tuned.items()
        if std and name in found.maps  # a benchmark may leave detectors out
    }
    return found._replace(maps=found.maps | more)


def smooth(maps, std):
    """Filter maps [N, H, W] with a Gaussian, pixels; 0 leaves them as they are."""
    return gaussian_filter(np.asarray(maps, np.float32), (0, std, std))


def table(found: Found) -> tuple[list[dict], dict]:
    """Return the rows of the table of scores, and {detector: pooled pixel metrics}."""
    job, images = found.job, found.job.images
    block, scores = job.estimator.block, dict(found.scores)
    for name, values in found.maps.items():
        blocks = kl.block_sum(jnp.asarray(values), block)
        top = job.estimator.top
        scores.setdefault(name, np.array([kl.top_mean(b, top) for b in blocks]))
    rows = []
    for name, values in scores.items():
        inside = localizations(found.maps.get(name), images, block)
        own = p_values(job, values) if name == methods.OURS else None
        rows += rows_of(images, name, inside, values, own)
    if images.masks is None:
        return rows, {}
    seen = images.masks, images.eligible | images.masks
    is_id = np.array(images.groups) == "id"
    by_pixel = {
        name: metrics.pixel_metrics(maps, *seen, is_id)
        for name, maps in found.maps.items()
    }
    return rows, by_pixel


def added(old: list[dict], new: list[dict]) -> list[dict]:
    """Return the rows of a table with those of some detectors computed anew.

    Raises:
      ValueError: if they are of other images.
    """
    images = {row["image_id"] for row in old}, {row["image_id"] for row in new}
    if images[0] != images[1]:
        raise ValueError(
            f"the table is of {len(images[0])} images, other ones than these "
            f"{len(images[1])}; compute it whole, with --recompute"
        )
    names = {row["method"] for row in new}
    return [row for row in old if row["method"] not in names] + new


def rows_of(images: ImageSet, name, inside, scores, own=None) -> list[dict]:
    """Return one row an image, without p-values where there is no law."""
    own = np.full(len(scores), np.nan) if own is None else own
    patients, names = images.patients or images.ids, [name] * len(scores)
    looks = sizes(images)
    known = images.ids, images.groups, patients, names, inside, scores, own, *looks
    return [dict(zip(FIELDS, row, strict=True)) for row in zip(*known, strict=True)]


def sizes(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Return how many pixels each anomaly has and how much brighter it is than around.

    Around: three pixels more on every side. NaN where there is no mask.
    """
    if images.masks is None:
        return (np.full(len(images.ids), np.nan),) * 2
    pixels = images.masks.sum((1, 2)).astype(float)
    contrast = np.full(len(pixels), np.nan)
    for i in np.flatnonzero(pixels):
        image, mask = images.images[i].mean(-1), images.masks[i]
        around = binary_dilation(mask, iterations=3) & ~mask
        contrast[i] = image[mask].mean() - image[around].mean()
    return pixels, contrast


def p_values(job, scores):
    """Return the p-value of each score by the law that fits, None if there is none."""
    law = run.find_law(job)
    if law is None:
        return None
    law = calibration.scaled(law, job.error_ratio).scores
    return [calibration.p_value(score, law) for score in scores]


def training_images(job, count):
    """Draw images of the train split."""
    source = as_source(build("data", job.settings["train"]["data"]))
    keys = jax.random.split(jax.random.key(1), count)
    return np.asarray(jax.jit(jax.vmap(source.draw, (None, 0)))(source.arrays, keys))


def localizations(maps, images, block):
    """Return the AUROC inside each image [N], NaN where there is none."""
    if maps is None or images.masks is None:
        return np.full(len(images.ids), np.nan)
    regions = images.eligible | images.masks
    triples = zip(maps, images.masks, regions, strict=True)
    return np.array([metrics.block_auroc(*t, block) for t in triples])


def write_rows(path, rows):
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        numbers = {k: f"{float(row[k]):.6g}" for k in NUMBERS}
        writer.writerow(row | numbers)
    write_atomically(path, buffer.getvalue().encode())


def read_rows(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {k: float(row.get(k, "nan")) for k in NUMBERS}
    return rows
