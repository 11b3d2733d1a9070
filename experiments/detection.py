"""Every detector on the same images, measurements and posterior samples: one table.

    python experiments/detection.py --benchmark=A|B|C|D [--recompute]

A: lesions, streaks and foreign texture in abdominal CT (configs/abdomen_ct.py); also
with half of the views (A_12_views), measured on a finer grid than is inverted (A_finer)
and against other images altogether (A_far). B: real tumours in brain MRI
(configs/brain_mri.py), or all slices of its test set (B_all). C: scars on blurred
faces, or with a hole (C_inpaint; configs/faces.py). D: digits among clothes, half of
the pixels hidden (configs/fashion_inpaint.py). What one image yields is kept in
--workdir, so that a killed run continues; the numbers of every image and detector are
kept in scores/<benchmark>.csv, from which the table is made without images or sampling.
--recompute starts from the images; --only=<start of a name>,... does so for detectors
of such names, and puts them beside the others' numbers. Detectors that need
in-distribution images are fitted on --fit images of the train split, measured like the
others; how far maps are smoothed was chosen by tune_baselines.py, on tuning images.

Prints one JSON object with `checks` and writes results/<benchmark>.md: both AUROCs, the
best of each family first, and false alarms and power of our p-values; and
<benchmark>_roc.png, of our detector and the others that detect best. Maps of the same
images side by side stay in the --workdir, as maps.png: no image of the sets is
published. About 15 seconds an image of 64x64 on one core, half of them for KLIP as
released.
"""

import json
import sys
from pathlib import Path

import alarms
import detection_tables
import methods
import numpy as np
import pictures
import problems
import records
from absl import app, flags

from klip_jax import metrics
from klip_jax.build import fill
from klip_jax.checkpoint import write_atomically
from klip_jax.detectors import klip

FLAGS = flags.FLAGS
flags.DEFINE_enum("benchmark", "A", list(problems.BENCHMARKS), "Which one.")
flags.DEFINE_integer("per_group", 0, "Images of each group; 0: the benchmark's own.")
flags.DEFINE_integer("fit", 32, "Training images for the detectors that are fitted.")
flags.DEFINE_boolean("recompute", False, "Sample again, whatever is kept.")
flags.DEFINE_string("workdir", "runs/detection", "Where results are kept.")
HERE = Path(__file__).resolve().parent
BOUND = "supervised bound (y)"
BELOW_BOUND = {"localization": 0.03, "detection": 0.05}


def main(_):
    table = HERE / "scores" / f"{FLAGS.benchmark}.csv"
    pixels = table.with_suffix(".json")
    config = problems.benchmark(FLAGS.benchmark, FLAGS.per_group)
    if FLAGS.recompute or FLAGS.only or not table.is_file():
        compute(config, table, pixels)
    rows = with_bound(records.read_rows(table))
    by_pixel = json.loads(pixels.read_text()) if pixels.is_file() else {}
    found = summary(rows)
    settings = fill(klip.Settings, config["estimator"], "estimator")
    ours = [row for row in rows if row["method"] == methods.OURS]
    columns = ("score", "p_value", "group", "patient")
    flagged = alarms.rates(*([row[c] for row in ours] for c in columns))
    own_parts = "KLIP guided", "KLIP coherent"
    rivals = shown(found, "localization", most=len(found))
    rivals = [name for name in rivals if not name.startswith(own_parts)]
    written = (
        detection_tables.leaders(found, settings),
        detection_tables.by_group(found, settings, sorted({r["group"] for r in rows})),
        detection_tables.by_pixel(by_pixel),
        detection_tables.by_image(rows),
        detection_tables.by_kind(rows, rivals[:6]),
        alarms.table(flagged),
    )
    text = "\n".join(table for table in written if table)
    write_atomically(HERE / "results" / f"{FLAGS.benchmark}.md", text.encode())
    write_atomically(HERE / "results" / f"{FLAGS.benchmark}_roc.png", roc(rows, found))
    checks = list(compare(found))
    print(json.dumps({"checks": checks, "methods": found, "alarms": flagged}))
    return 0 if all(check["ok"] for check in checks) else 1


def compute(config, table, pixels):
    """Sample, and write the scores, the pixel metrics and the maps side by side."""
    own = problems.BENCHMARKS[FLAGS.benchmark]
    folder = Path(FLAGS.workdir) / FLAGS.benchmark
    asked = dict(fit=FLAGS.fit, recompute=FLAGS.recompute, released=own.released)
    simulator = problems.finer_scanner if own.finer else None
    found = records.collect(config, folder, simulator=simulator, **asked)
    tuned = HERE / "scores" / f"{own.problem}_tuned.json"
    if tuned.is_file():
        found = records.smoothed(found, json.loads(tuned.read_text()))
    rows, by_pixel = records.table(found)
    if FLAGS.only and table.is_file():
        rows = records.added(records.read_rows(table), rows)
        by_pixel = json.loads(pixels.read_text()) | by_pixel
    elif not FLAGS.only:
        picture = side_by_side(rows, found.job.images, found.maps)
        write_atomically(folder / "maps.png", picture)
    records.write_rows(table, rows)
    write_atomically(pixels, json.dumps(by_pixel, indent=1).encode())


def with_bound(rows):
    """Return the rows and those of the supervised bound on the same images, if any."""
    path = HERE / "scores" / f"{FLAGS.benchmark}_bound.csv"
    bound = records.read_rows(path) if path.is_file() else []
    ids = [row["image_id"] for row in rows if row["method"] == methods.OURS]
    found = {row["image_id"]: row for row in bound}
    return rows + [found[i] for i in ids] if set(ids) <= set(found) else rows


def summary(rows):
    """Return {method: both AUROCs with intervals, by group, and ours minus theirs}."""
    statistics = statistics_of(rows)
    patients = [row["patient"] for row in rows if row["method"] == methods.OURS]
    found = values_of(statistics, len(patients))
    for name, asked in statistics.items():
        # Groups are shown without intervals.
        for question in set(asked) & {"localization", "detection"}:
            found[name][question] = metrics.bootstrap(asked[question], patients)
            if name != methods.OURS:
                pair = statistics[methods.OURS][question], asked[question]
                difference = metrics.paired_difference(*pair, patients)
                found[name][f"ours minus this, {question}"] = difference
    return found


def values_of(statistics, count):
    """Return {method: {question: {"value"}}} of `statistics_of` so many images."""
    once = np.ones((1, count))
    return {
        name: {q: {"value": float(s(once)[0])} for q, s in asked.items()}
        for name, asked in statistics.items()
    }


def statistics_of(rows):
    """Return {method: {question: AUROC as a function of the images' weights}}."""
    groups = np.array([row["group"] for row in rows if row["method"] == methods.OURS])
    ood = groups != "id"
    parts = {
        g: np.where((groups == g) | ~ood, 1.0, 0.0) for g in sorted({*groups[ood]})
    }
    found = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        inside, scores = (
            np.array([float(r[k]) for r in mine]) for k in ("localization", "score")
        )
        asked = {"detection": metrics.auroc_of(scores, ood)}
        if np.isfinite(inside).any():
            asked["localization"] = metrics.mean_of(inside)
        found[name] = asked | {
            f"{question} {group}": lambda w, statistic=statistic, part=part: statistic(
                w * part
            )
            for question, statistic in asked.items()
            for group, part in parts.items()
        }
    return found


def shown(found, question, most=8):
    """Return our detector and the best others that look at y, by `question`."""
    fair = [n for n in found if "(x)" not in n and question in found[n]]
    best = sorted(fair, key=lambda name: -found[name][question]["value"])
    return [methods.OURS, *(name for name in best if name != methods.OURS)][:most]


def roc(rows, found):
    """Return the picture of the ROC of our detector and the best others."""
    names = shown(found, "detection")
    scores = {
        n: np.array([r["score"] for r in rows if r["method"] == n]) for n in names
    }
    groups = [row["group"] for row in rows if row["method"] == methods.OURS]
    return pictures.roc(scores, np.array(groups) != "id")


def side_by_side(rows, images, maps, most=2):
    """Return the picture of the best maps on the first images of each group."""
    question = "localization" if images.masks is not None else "detection"
    found = values_of(statistics_of(rows), len(images.ids))
    best = {n: maps[n] for n in shown(found, question) if n in maps}
    groups = np.array(images.groups)
    first = [np.flatnonzero(groups == g)[:most] for g in dict.fromkeys(images.groups)]
    return pictures.side_by_side(images, best, np.concatenate(first))


def compare(found):
    """Yield the checks: ours above all that works from y, not far below the bound."""
    for name, numbers in found.items():
        fair = "(y)" in name or "(x^)" in name
        fair = (fair and not name.startswith("KL")) or name.startswith(methods.RELEASED)
        fair |= name.startswith("control")
        for question in ("localization", "detection"):
            difference = numbers.get(f"ours minus this, {question}")
            if name == BOUND and difference:
                far, value = BELOW_BOUND[question], difference["value"]
                yield {
                    "name": f"{question} minus that of the supervised bound",
                    "value": value,
                    "target": -far,
                    "tolerance": 0,
                    "ok": bool(value >= -far),
                }
            elif fair and difference:
                low = difference["low"]
                yield {
                    "name": f"{question} above {name}, 95 % low",
                    "value": low,
                    "target": 0.0,
                    "tolerance": 0,
                    "ok": bool(low > 0),
                }


if __name__ == "__main__":
    app.run(main, argv=sys.argv)
