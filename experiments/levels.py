"""Where in sigma the KL is, and where what is anomalous is: level by level.

    python experiments/levels.py --images=slices|phantoms|brain|faces [--per_group=15]

On tuning images (`lab/problems.py`) with the config's samples and pooling and no
filter: the density I(sigma) of the KL in ln sigma, nats an image, of healthy and of
anomalous ones, and both AUROCs of each level's map alone, for every map. Prints one
JSON object and writes results/levels_<images>.md; the figure goes to --workdir. About 5
seconds an image on one core.
"""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from choose_settings import FLAGS, aurocs
from lab import pictures, problems, tables
from lab.batches import over_images

from klip_jax import kl
from klip_jax.files import write_atomically
from klip_jax.scan import simulate

flags.DEFINE_string("workdir", "runs/levels", "Where the figure goes.")
LEVELS = np.geomspace(0.01, 5.0, 10)
QUESTIONS = "localization", "detection"


def main(_):
    (name,) = FLAGS.images
    images = problems.tuning_images(name, FLAGS.per_group, FLAGS.seed)
    own = problems.setup(problems.settings(name), FLAGS.weights)
    keys = jax.random.split(jax.random.key(FLAGS.seed), len(images))
    shared = *own.scanner, own.sampler, own.klip
    every = over_images(level_maps, shared, keys, images.images)
    blocks = np.stack(list(every))  # [N, K, 3, H/b, W/b]
    density = blocks.sum((-1, -2))
    anomalous = np.array(images.groups) != "id"
    rows = []
    for (m, kind), (k, sigma) in itertools.product(
        enumerate(kl.MAPS), enumerate(LEVELS)
    ):
        row = {"sigma": float(sigma), "map": kind}
        for who, are in (("healthy", ~anomalous), ("anomalous", anomalous)):
            row[f"{who} images, nats"] = float(np.median(density[are, k, m]))
        found = aurocs(blocks[:, k, m], images)
        rows.append(row | {question: found[question] for question in QUESTIONS})
    path = Path(__file__).resolve().parent / "results" / f"levels_{name}.md"
    cells = [
        [v if isinstance(v, str) else f"{v:.3g}" for v in row.values()] for row in rows
    ]
    write_atomically(path, tables.markdown(list(rows[0]), cells).encode())
    figure = pictures.by_level(LEVELS, density, anomalous, rows, own.klip.window)
    write_atomically(Path(FLAGS.workdir) / f"{name}.png", figure)
    print(json.dumps({"images": name, "rows": rows}))


def level_maps(prior, operator, noise_std, sampler, klip, key, x):
    """Return the pooled block maps of every level and map [K, 3, H/b, W/b]. Pure."""
    key_noise, key_samples, key_levels = jax.random.split(key, 3)
    scan = simulate(key_noise, operator, x, noise_std)
    samples = sampler(key_samples, scan, prior).samples
    shown = dict(block=klip.block, pool_width=klip.pool_width)
    levels = jnp.asarray(LEVELS, jnp.float32)
    measured = klip.guidance, scan, samples, levels
    return kl.levels_kl(key_levels, prior, *measured, **shown).blocks


if __name__ == "__main__":
    app.run(main)
