"""Where in sigma the KL is, and where what is anomalous is: level by level.

    python experiments/levels.py --images=slices|phantoms|brain|faces [--per_group=15]

On tuning images (`problems.py`) with the config's samples and pooling and no filter:
the density I(sigma) of the KL in ln sigma, nats an image, of healthy and of anomalous
ones, and both AUROCs of each level's map alone, for every map. Prints one JSON object
and writes results/levels_<images>.md and .png. About 5 seconds an image on one core.
"""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pictures
import problems
import tables
from absl import app
from batches import over_images
from choose_settings import FLAGS, aurocs

from klip_jax import kl
from klip_jax.build import fill
from klip_jax.checkpoint import write_atomically
from klip_jax.detectors import klip
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian

LEVELS = np.geomspace(0.01, 5.0, 10)
QUESTIONS = "localization", "detection"


def main(_):
    (name,) = FLAGS.images
    images = problems.tuning_images(name, FLAGS.per_group, FLAGS.seed)
    config = problems.config(name).to_dict()
    prior, _, *measured = problems.scanner(config, images.images.shape[1:])
    settings = fill(klip.Settings, config["estimator"], "estimator")
    keys = jax.random.split(jax.random.key(FLAGS.seed), len(images.ids))

    def maps_of(prior, operator, noise_std, key, x):
        return level_maps(prior, operator, noise_std, key, x, settings)

    every = over_images(maps_of, (prior, *measured), keys, images.images)
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
    picture = pictures.by_level(LEVELS, density, anomalous, rows, settings.window)
    write_atomically(path.with_suffix(".png"), picture)
    print(json.dumps({"images": name, "rows": rows}))


def level_maps(prior, operator, noise_std, key, x, settings):
    """Return the pooled block maps of every level and map [K, 3, H/b, W/b]. Pure."""
    key_noise, key_samples, key_levels = jax.random.split(key, 3)
    y = operator(x) + noise_std * jax.random.normal(key_noise, operator.out_shape)
    likelihood = ConditionalGaussian(operator, y, noise_std, settings.inflation)
    samples = klip.posterior_samples(key_samples, likelihood, prior, settings).x
    levels = jnp.asarray(LEVELS)
    shown = dict(block=settings.block, pooling=settings.pooling)
    return kl.levels_kl(key_levels, prior, likelihood, samples, levels, **shown).blocks


if __name__ == "__main__":
    app.run(main)
