"""Every detector on the same images, measurements and posterior samples: one table.

    python experiments/detection.py --benchmark=A|B|D [--per_group=25] [--recompute]

A: lesions, streaks and foreign texture in abdominal CT (configs/abdomen_ct.py). B: real
tumours in brain MRI (configs/brain_mri.py). D: digits among clothes, half of the pixels
hidden (configs/fashion_inpaint.py). What one image yields is kept in --workdir, so that
a killed run continues; the numbers of every image and detector are kept in
scores/<benchmark>.csv, from which the table is made without images or sampling.
--recompute starts from the images. Detectors that need in-distribution images are
fitted on --fit images of the train split, measured like the others; nothing is tuned
there, every detector has the numbers of its defaults.

Prints one JSON object with `checks` and writes results/<benchmark>.md: both AUROCs, and
false alarms and power of our p-values. About 4 seconds an image of 64x64 on one core.
"""

import csv
import functools
import importlib.util
import io
import json
import sys
import zlib
from pathlib import Path

import alarms
import jax
import jax.numpy as jnp
import methods
import numpy as np
import tables
from absl import app, flags
from tqdm import tqdm

from klip_jax import calibration, kl, metrics, run
from klip_jax.build import build, fill
from klip_jax.checkpoint import write_atomically
from klip_jax.detectors import klip
from klip_jax.job import prepare
from klip_jax.run_train import as_source

FLAGS = flags.FLAGS
flags.DEFINE_enum("benchmark", "A", ["A", "B", "C", "D"], "Which one.")
flags.DEFINE_integer("per_group", 25, "Images of each group.")
flags.DEFINE_integer("fit", 64, "Training images for the detectors that are fitted.")
flags.DEFINE_boolean("recompute", False, "Sample again, whatever is kept.")
flags.DEFINE_string("workdir", "runs/detection", "Where results are kept.")
HERE = Path(__file__).resolve().parent
CONFIGS = {"A": "abdomen_ct", "B": "brain_mri", "D": "fashion_inpaint"}
GROUPS = {"A": ("id", "lesion_mid", "lesion_high", "texture", "streak")}
NUMBERS = ("localization", "score", "p_value")
FIELDS = ("image_id", "group", "patient", "method", *NUMBERS)


def main(_):
    table = HERE / "scores" / f"{FLAGS.benchmark}.csv"
    pixels = table.with_suffix(".json")
    if FLAGS.recompute or not table.is_file():
        rows, by_pixel = compute()
        write_rows(table, rows)
        write_atomically(pixels, json.dumps(by_pixel, indent=1).encode())
    rows = read_rows(table)
    by_pixel = json.loads(pixels.read_text()) if pixels.is_file() else {}
    found = summary(rows)
    settings = fill(klip.Settings, config()["estimator"], "estimator")
    ours = [row for row in rows if row["method"] == methods.OURS]
    columns = ("score", "p_value", "group", "patient")
    flagged = alarms.rates(*([row[c] for row in ours] for c in columns))
    written = (
        auroc_table(found, settings, sorted({r["group"] for r in rows})),
        pixel_table(by_pixel),
        alarms.table(flagged),
    )
    text = "\n".join(table for table in written if table)
    write_atomically(HERE / "results" / f"{FLAGS.benchmark}.md", text.encode())
    checks = list(compare(found))
    print(json.dumps({"checks": checks, "methods": found, "alarms": flagged}))
    return 0 if all(check["ok"] for check in checks) else 1


def config():
    """Return the benchmark's config as plain data."""
    path = HERE.parent / "configs" / f"{CONFIGS[FLAGS.benchmark]}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.get_config()
    found.data.per_group = FLAGS.per_group
    if FLAGS.benchmark in GROUPS:
        found.data.groups = GROUPS[FLAGS.benchmark]
    return found.to_dict()


def compute():
    """Run every detector on every image.

    Returns:
      The rows of the table of scores, and {method: pooled pixel metrics} where there
      are masks.
    """
    job = prepare(config(), Path(FLAGS.workdir) / FLAGS.benchmark)
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
        if FLAGS.recompute or not path.is_file():
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
    own = tqdm(training_images(job), unit="image", desc="training images")
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
        return rows, {}
    seen = images.masks, images.eligible | images.masks
    is_id = np.array(images.groups) == "id"
    return rows, {
        name: metrics.pixel_metrics(found, *seen, is_id) for name, found in maps.items()
    }


def p_values(job, scores):
    """Return the p-value of each score by the law that fits, NaN if there is none."""
    law = run.find_law(job)
    if law is None:
        return [np.nan] * len(scores)
    law = calibration.score_law(law, job.estimator.top, None)
    return [calibration.p_value(score, law) for score in scores]


def training_images(job):
    """Draw images of the train split."""
    source = as_source(build("data", job.settings["train"]["data"]))
    keys = jax.random.split(jax.random.key(1), FLAGS.fit)
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


def summary(rows):
    """Return {method: both AUROCs with intervals, by group, and ours minus theirs}."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    first = [row for row in rows if row["method"] == names[0]]
    groups = np.array([row["group"] for row in first])
    patients = [row["patient"] for row in first]
    ood = groups != "id"
    statistics = {}
    for name in names:
        mine = [row for row in rows if row["method"] == name]
        inside, scores = (
            np.array([r[k] for r in mine]) for k in ("localization", "score")
        )
        statistics[name] = {"detection": metrics.auroc_of(scores, ood)}
        if np.isfinite(inside).any():
            statistics[name]["localization"] = metrics.mean_of(inside)
        for group in sorted(set(groups) - {"id"}):
            some = np.where((groups == group) | ~ood, 1.0, 0.0)
            for question, statistic in tuple(statistics[name].items()):
                if " " not in question:
                    statistics[name][f"{question} {group}"] = (
                        lambda w, statistic=statistic, some=some: statistic(w * some)
                    )
    found = {}
    for name, asked in statistics.items():
        found[name] = {q: metrics.bootstrap(s, patients) for q, s in asked.items()}
        for question in set(asked) & {"localization", "detection"}:
            if name != methods.OURS:
                pair = statistics[methods.OURS][question], asked[question]
                difference = metrics.paired_difference(*pair, patients)
                found[name][f"ours minus this, {question}"] = difference
    return found


def compare(found):
    """Yield the checks: ours above every control and every baseline that has y."""
    for name, numbers in found.items():
        fair = name.endswith(("(y)", "(x^)")) and not name.startswith("KL")
        fair |= name.startswith(methods.RELEASED)
        fair |= name.startswith("control")
        for question in ("localization", "detection"):
            difference = numbers.get(f"ours minus this, {question}")
            if fair and difference:
                low = difference["low"]
                yield {
                    "name": f"{question} above {name}, 95 % low",
                    "value": low,
                    "target": 0.0,
                    "tolerance": 0,
                    "ok": bool(low > 0),
                }


def auroc_table(found, settings, groups):
    """Return the table of all methods, best localization (or detection) first."""
    asked = [q for q in ("localization", "detection") if q in found[methods.OURS]]
    columns = [f"{q} {g}".strip() for q in asked for g in ("", *groups) if g != "id"]

    def value(name):
        return found[name].get(asked[0], {"value": 0.0})["value"]

    def cell(number, by_group):
        if number is None:
            return ""
        return f"{number['value']:.3f}" if by_group else tables.interval(number)

    rows = [
        [
            f"**{name}**" if name == methods.OURS else name,
            str(methods.network_calls(name, settings)),
            *(cell(found[name].get(column), " " in column) for column in columns),
        ]
        for name in sorted(found, key=value, reverse=True)
    ]
    return tables.markdown(["detector (looks at)", "network calls", *columns], rows)


def pixel_table(pixels):
    """Return the table of pooled pixel metrics, best AP first."""
    if not pixels:
        return ""
    names = [k for k in next(iter(pixels.values())) if k != "prevalence"]
    best = sorted(pixels, key=lambda name: -pixels[name]["ap"])
    rows = [[name, *(f"{pixels[name][k]:.3f}" for k in names)] for name in best]
    prevalence = next(iter(pixels.values()))["prevalence"]
    head = [f"pixels of all images, {prevalence:.1%} anomalous", *names]
    return tables.markdown(head, rows)


if __name__ == "__main__":
    app.run(main, argv=sys.argv)
