"""How much chance there is in our numbers: the default detector with other seeds.

    python experiments/seeds.py --benchmark=A|B|C|... [--at_once=50]

The benchmark's images (`lab/benchmarks.py`) and the config's detector, with other noise
in the measurements and in the samplers for each of three seeds. Prints one JSON object
with both AUROCs of every seed and their spread, and keeps it as
scores/<benchmark>_seeds.json. About 2 seconds an image and seed on one core."""

import json

import numpy as np
from absl import app, flags
from lab import benchmarks, problems
from lab.aurocs import localizations
from lab.batches import looks
from lab.scores import FOLDER

from klip_jax import metrics
from klip_jax.files import write_atomically

FLAGS = flags.FLAGS
flags.DEFINE_enum("benchmark", "A", list(benchmarks.BENCHMARKS), "Which one.")
flags.DEFINE_integer("per_group", 0, "Images of each group; 0: the benchmark's own.")
SEEDS = (1, 2, 3)


def main(_):
    settings = benchmarks.settings(FLAGS.benchmark, FLAGS.per_group)
    images, own = problems.images(settings), problems.setup(settings)
    found = [aurocs(list(looks(own, images, seed)), images, seed) for seed in SEEDS]
    questions = [q for q in found[0] if q != "seed"]
    values = {q: np.array([row[q] for row in found]) for q in questions}
    report = {
        "benchmark": FLAGS.benchmark,
        "images": len(images),
        "seeds": found,
        "mean": {q: round(float(v.mean()), 4) for q, v in values.items()},
        "standard deviation": {
            q: round(float(v.std(ddof=1)), 4) for q, v in values.items()
        },
    }
    path = FOLDER / f"{FLAGS.benchmark}_seeds.json"
    write_atomically(path, json.dumps(report, indent=1).encode())
    print(json.dumps(report))


def aurocs(found, images, seed):
    """Return both AUROCs of what `looks` yields of all images."""
    is_ood = np.array(images.groups) != "id"
    scores, maps = zip(*((d.score, d.heatmap) for d, _ in found), strict=True)
    numbers = {"detection": round(metrics.auroc(scores, is_ood), 4), "seed": seed}
    if images.masks is not None:
        inside = localizations(np.stack(maps), images)
        numbers["localization"] = round(float(np.nanmean(inside)), 4)
    return numbers


if __name__ == "__main__":
    app.run(main)
