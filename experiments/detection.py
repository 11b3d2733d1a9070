"""Every detector on the same images, measurements and posterior samples: one table.

    python experiments/detection.py --benchmark=A|B|C|D|cifar10|mnist [--recompute]

A: lesions, streaks and foreign texture in abdominal CT (configs/abdomen_ct.py); also
with half of the views (A_12_views), measured on a finer grid than is inverted (A_finer)
and against other images altogether (A_far). B: real tumours in brain MRI
(configs/brain_mri.py), or all slices of its test set (B_all). C: scars on blurred
faces, or with a hole (C_inpaint; configs/faces.py). D: digits among clothes, half of
the pixels hidden (configs/fashion_inpaint.py). cifar10 and mnist, in which a classifier
takes part, are of whole images, over three seeds (`lab/class_runs.py`); also from half
of the pixels (cifar10_half, mnist_half), from blurred images (cifar10_blur, mnist_blur)
and from a quarter of the resolution (cifar10_4x).

--recompute runs them all as any run does (`lab/runs.py`), in --workdir, so that a
killed run continues; the numbers of every image and detector are kept in
scores/<benchmark>.parquet, from which the tables are made without images or sampling.
--only=<start of a name>,... runs detectors of such names alone, and puts them beside
the others' numbers. Detectors that need in-distribution images are fitted on half of
the --healthy images of the train split, measured like the others; how far maps are
smoothed was chosen by tune_baselines.py, on tuning images.

Prints one JSON object with `checks` and writes results/<benchmark>.md: both AUROCs, the
best of each family first, and false alarms and power of our p-values. With a
classifier: AUROC, AUPR and FPR95 of near and far sets, what each costs, what
combinations add, and exit 1 where a target is missed. The ROC of our detector and the
others that detect best, and maps of the same images side by side, are pictures in
--workdir: no image of the sets is published. About 15 seconds an image of 64x64 on one
core, half of them for KLIP as released.
"""

import json
from pathlib import Path

from absl import app, flags
from checks import finish
from lab import (
    alarms,
    benchmarks,
    class_benchmarks,
    class_report,
    detection_tables,
    pictures,
    runs,
    scores,
)
from lab.detectors import BOUND, OURS
from lab.summary import best, compare, summary

from klip_jax.files import write_atomically

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "benchmark",
    "A",
    [*benchmarks.BENCHMARKS, *class_benchmarks.BENCHMARKS],
    "Which one.",
)
flags.DEFINE_integer("per_group", 0, "Images of each group; 0: the benchmark's own.")
flags.DEFINE_integer("healthy", 64, "Training images, one half of them for fits.")
flags.DEFINE_boolean("recompute", False, "Run again, and replace the table.")
flags.DEFINE_list("only", [], "Run only detectors whose names start with one.")
flags.DEFINE_string("workdir", "runs/detection", "Where results are kept.")
HERE = Path(__file__).resolve().parent


def main(_):
    folder = Path(FLAGS.workdir) / FLAGS.benchmark
    if FLAGS.benchmark in class_benchmarks.BENCHMARKS:
        again, few = FLAGS.recompute, FLAGS.per_group
        report, text = class_report.of(FLAGS.benchmark, folder, again=again, few=few)
        write_atomically(HERE / "results" / f"{FLAGS.benchmark}.md", text.encode())
        finish(report)
    path = scores.path_of(FLAGS.benchmark)
    pixels = path.with_suffix(".json")
    if FLAGS.recompute or FLAGS.only or not path.is_file():
        compute(folder, path, pixels)
    table = scores.read(path)
    by_pixel = json.loads(pixels.read_text()) if pixels.is_file() else {}
    numbers = summary(table)
    ours = scores.of(table, OURS)
    columns = "score", "p_value", "group", "patient"
    flagged = alarms.rates(*(ours[column] for column in columns))
    own_parts = "KLIP guided", "KLIP coherent"
    rivals = [n for n in best(numbers, "localization") if not n.startswith(own_parts)]
    written = (
        detection_tables.leaders(numbers),
        detection_tables.by_group(numbers, sorted({*table["group"].tolist()})),
        detection_tables.by_pixel(by_pixel),
        detection_tables.by_image(table),
        detection_tables.by_kind(table, rivals[:6]),
        alarms.table(flagged),
    )
    text = "\n".join(part for part in written if part)
    write_atomically(HERE / "results" / f"{FLAGS.benchmark}.md", text.encode())
    shown = {n: scores.of(table, n)["score"] for n in best(numbers, "detection", 8)}
    write_atomically(folder / "roc.png", pictures.roc(shown, ours["group"] != "id"))
    checks = list(compare(numbers))
    finish({"checks": checks, "detectors": numbers, "alarms": flagged})


def compute(folder, path, pixels):
    """Run, and write the scores, the pixel metrics and the maps side by side."""
    own = benchmarks.BENCHMARKS[FLAGS.benchmark]
    results = runs.everything(
        benchmarks.settings(FLAGS.benchmark, FLAGS.per_group),
        folder,
        healthy=FLAGS.healthy,
        only=tuple(FLAGS.only),
        released=own.released,
        finer=own.finer,
    )
    tuned = scores.FOLDER / f"{own.problem}_tuned.json"
    if tuned.is_file():
        results = runs.smoothed(results, json.loads(tuned.read_text()))
    table, by_pixel = runs.table(results), runs.by_pixel(results)
    if not FLAGS.only:
        write_atomically(folder / "maps.png", runs.side_by_side(results, table))
    if path.is_file():
        # The supervised bound is another script's.
        old = scores.read(path)
        kept = old if FLAGS.only else scores.of(old, BOUND)
        table = scores.replaced(kept, table) if len(kept["score"]) else table
    if FLAGS.only and pixels.is_file():
        by_pixel = json.loads(pixels.read_text()) | by_pixel
    scores.write(path, table)
    if by_pixel:
        write_atomically(pixels, json.dumps(by_pixel, indent=1).encode())


if __name__ == "__main__":
    app.run(main)
