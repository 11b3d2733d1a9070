"""How much chance there is in our numbers: the default detector with other seeds.

    python experiments/seeds.py --benchmark=A|B|C|... [--at_once=50]

The benchmark's images (`problems.py`) and the config's estimator, with other noise in
the measurements and in the samplers for each of three seeds. Prints one JSON object
with both AUROCs of every seed and their spread, and keeps it as
scores/<benchmark>_seeds.json. About 2 seconds an image and seed on one core.
"""

import json
from pathlib import Path

import jax
import numpy as np
import problems
from absl import app, flags
from batches import over_images

from klip_jax import metrics
from klip_jax.build import build, fill
from klip_jax.checkpoint import write_atomically
from klip_jax.detectors import klip

FLAGS = flags.FLAGS
flags.DEFINE_enum("benchmark", "A", list(problems.BENCHMARKS), "Which one.")
flags.DEFINE_integer("per_group", 0, "Images of each group; 0: the benchmark's own.")
SEEDS = (1, 2, 3)


def main(_):
    config = problems.benchmark(FLAGS.benchmark, FLAGS.per_group)
    data = {k: v for k, v in config["data"].items() if k != "measurements"}
    images = build("data", data)
    prior, _, operator, noise_std = problems.scanner(config, images.images.shape[1:])
    settings = fill(klip.Settings, config["estimator"], "estimator")

    def scores(prior, operator, key, x):
        key_noise, key = jax.random.split(key)
        noise = jax.random.normal(key_noise, operator.out_shape)
        y = operator(x) + noise_std * noise
        found = klip.estimate(key, y, operator, noise_std, prior, settings)
        return klip.detection(found.levels, settings)

    found = []
    for seed in SEEDS:
        keys = jax.random.split(jax.random.key(seed), len(images.ids))
        own = list(over_images(scores, (prior, operator), keys, images.images))
        found.append(aurocs(own, images, settings.block) | {"seed": seed})
    questions = [q for q in found[0] if q != "seed"]
    values = {q: np.array([row[q] for row in found]) for q in questions}
    report = {
        "benchmark": FLAGS.benchmark,
        "images": len(images.ids),
        "seeds": found,
        "mean": {q: round(float(v.mean()), 4) for q, v in values.items()},
        "standard deviation": {
            q: round(float(v.std(ddof=1)), 4) for q, v in values.items()
        },
    }
    path = Path(__file__).resolve().parent / "scores"
    write_atomically(
        path / f"{FLAGS.benchmark}_seeds.json", json.dumps(report, indent=1).encode()
    )
    print(json.dumps(report))


def aurocs(found, images, block):
    """Return both AUROCs of the detections of all images."""
    is_ood = np.array(images.groups) != "id"
    scores = np.array([detection.score for detection in found])
    numbers = {"detection": round(metrics.auroc(scores, is_ood), 4)}
    if images.masks is not None:
        regions = images.eligible | images.masks
        triples = zip(found, images.masks, regions, strict=True)
        inside = [metrics.block_auroc(d.heatmap, m, r, block) for d, m, r in triples]
        numbers["localization"] = round(float(np.nanmean(inside)), 4)
    return numbers


if __name__ == "__main__":
    app.run(main)
