"""What every detector yields on every image of a benchmark, kept image by image."""

import csv
import functools
import io
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import methods
import numpy as np
from tqdm import tqdm

from klip_jax import calibration, kl, metrics, run
from klip_jax.build import build
from klip_jax.checkpoint import write_atomically
from klip_jax.job import prepare
from klip_jax.run_train import as_source

NUMBERS = ("localization", "score", "p_value")
FIELDS = ("image_id", "group", "patient", "method", *NUMBERS)


def compute(config: dict, folder: Path, *, fit: int, recompute: bool):
    """Run every detector on every image.

    Args:
      config: of an experiment, as plain data.
      folder: where what one image yields is kept.
      fit: training images for the detectors that are fitted.
      recompute: sample again, whatever is kept.

    Returns:
      The rows of the table of scores, {method: pooled pixel metrics} where there are
      masks, and (images, {method: maps}).
    """
    job = prepare(config, folder)
    images, block, top = job.images, job.estimator.block, job.estimator.top
    settings = dict(noise_std=job.noise_std, settings=job.estimator)
    everything = functools.partial(methods.record, **settings)

    def to_fit(*args):
        # What is not returned is not computed.
        features = everything(*args)[1]
        return {}, {k: v for k, v in features.items() if not k.startswith("KL")}

    functions = {"test": jax.jit(everything), "fit": jax.jit(to_fit)}

    def recorded(name, x, eligible, use="test"):
        path = job.folder / "records" / f"{name}.npz"
        if recompute or not path.is_file():
            key = jax.random.fold_in(jax.random.key(0), zlib.crc32(name.encode()))
            found = functions[use](job.prior, job.operator, key, x, eligible)
            buffer = io.BytesIO()
            np.savez(
                buffer, **{f"{i}/{k}": v for i in (0, 1) for k, v in found[i].items()}
            )
            write_atomically(path, buffer.getvalue())
        with np.load(path, allow_pickle=False) as kept:
            parts = {}, {}
            for k in kept.files:
                parts[int(k[0])][k[2:]] = kept[k]
        return parts

    nowhere = np.zeros(job.operator.in_shape[:2], bool)
    own = tqdm(training_images(job, fit), unit="image", desc="training images")
    features = [
        recorded(f"fit_{i:04d}", x, nowhere, "fit")[1] for i, x in enumerate(own)
    ]
    reference = {k: np.stack([f[k] for f in features]) for k in features[0]}
    eligible = (
        [nowhere] * len(images.ids) if images.eligible is None else images.eligible
    )
    triples = zip(images.ids, images.images, eligible, strict=True)
    found = [recorded(*t) for t in tqdm(triples, total=len(images.ids), unit="image")]
    maps = {k: np.stack([m[k] for m, _ in found]) for k in found[0][0]}
    features = {k: np.stack([f[k] for _, f in found]) for k in found[0][1]}
    more, scores = methods.fitted(reference, features, block)
    maps |= more
    for name, values in maps.items():
        blocks = kl.block_sum(jnp.asarray(values), block)
        scores.setdefault(name, np.array([kl.top_mean(b, top) for b in blocks]))
    rows = []
    for name, values in scores.items():
        inside = localizations(maps.get(name), images, block)
        patients = images.patients or images.ids
        names = [name] * len(values)
        own = p_values(job, values) if name == methods.OURS else [np.nan] * len(values)
        known = images.ids, images.groups, patients, names, inside, values, own
        for row in zip(*known, strict=True):
            rows.append(dict(zip(FIELDS, row, strict=True)))
    if images.masks is None:
        return rows, {}, (images, maps)
    seen = images.masks, images.eligible | images.masks
    is_id = np.array(images.groups) == "id"
    by_pixel = {
        name: metrics.pixel_metrics(found, *seen, is_id) for name, found in maps.items()
    }
    return rows, by_pixel, (images, maps)


def p_values(job, scores):
    """Return the p-value of each score by the law that fits, NaN if there is none."""
    law = run.find_law(job)
    if law is None:
        return [np.nan] * len(scores)
    law = calibration.score_law(law, job.estimator.top, None)
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
