"""How many network calls are needed: both AUROCs against samples, steps and levels.

    python experiments/calls.py --images=slices|phantoms|brain|faces [--per_group=30]

Around the config's estimator one number changes at a time: N posterior samples, T steps
of their sampler, K noise levels of the window, and whether each noise draw is used with
both signs; and all at once for 39 calls, a twentieth of KLIP as released. Tuning images
(`problems.py`) and keys are the same for every row.
Prints one JSON object and writes results/calls_<images>.md and .png. About 10 seconds
an image on one core.
"""

import functools
import json
from pathlib import Path

import jax
import pictures
import problems
import tables
from absl import app
from aurocs import aurocs
from batches import over_images
from choose_settings import FLAGS
from tqdm import tqdm

from klip_jax import kl, sde
from klip_jax.build import fill
from klip_jax.checkpoint import write_atomically
from klip_jax.detectors import klip
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian

CHANGES = {
    "samples": (3, 4, 8, 12),
    "steps": (5, 10, 40),
    "levels": (2, 3, 12),
}
# A twentieth of KLIP as released: two levels, where the signal is.
CHEAP = dict(samples=3, steps=9, levels=2, window=(0.05, 0.2))


def main(_):
    (name,) = FLAGS.images
    images = problems.tuning_images(name, FLAGS.per_group, FLAGS.seed)
    config = problems.config(name).to_dict()
    shape = images.images.shape[1:]
    prior, _, *measured = problems.scanner(config, shape, FLAGS.weights)
    own = fill(klip.Settings, config["estimator"], "estimator")
    rows = [(own, (1.0, -1.0)), (own, (1.0,))]
    for knob, values in CHANGES.items():
        rows += [(own._replace(**{knob: value}), (1.0, -1.0)) for value in values]
    rows.append((own._replace(**CHEAP), (1.0, -1.0)))
    found = []
    for settings, signs in tqdm(rows, unit="setting"):
        own_heatmap = functools.partial(heatmap, settings=settings, signs=signs)
        keys = jax.random.split(jax.random.key(FLAGS.seed), len(images.ids))
        maps = list(over_images(own_heatmap, (prior, *measured), keys, images.images))
        row = {k: getattr(settings, k) for k in CHANGES} | {"signs": len(signs)}
        row["window"] = "{:g}-{:g}".format(*settings.window)
        levels = settings.levels * len(signs)
        row["network_calls"] = settings.samples * (settings.steps + levels)
        found.append(row | aurocs(maps, images))
    picture = pictures.against_calls(found, (*CHANGES, "signs"))
    found.sort(key=lambda row: row["network_calls"])
    path = Path(__file__).resolve().parent / "results" / f"calls_{name}.md"
    write_atomically(path, table(found).encode())
    write_atomically(path.with_suffix(".png"), picture)
    print(json.dumps({"images": name, "rows": found}))


def heatmap(prior, operator, noise_std, key, x, settings, signs):
    key_noise, key_samples, key_levels = jax.random.split(key, 3)
    y = operator(x) + noise_std * jax.random.normal(key_noise, operator.out_shape)
    likelihood = ConditionalGaussian(operator, y, noise_std, settings.inflation)
    found = kl.levels_kl(
        key_levels,
        prior,
        likelihood,
        klip.posterior_samples(key_samples, likelihood, prior, settings).x,
        sde.log_levels(settings.levels, *settings.window),
        scale=settings.scale,
        emphasis=settings.emphasis,
        pooling=settings.pooling,
        signs=signs,
    )
    return found.heatmap[kl.MAPS.index(settings.map)]


def table(rows):
    """Return the rows as a table, the cheapest first."""
    names = ("network_calls", *CHANGES, "window", "signs")
    questions = ("localization_auroc", "detection_auroc")
    head = [name.replace("_", " ") for name in (*names, *questions)]
    cells = [
        [*(str(row[n]) for n in names), *(tables.interval(row[q]) for q in questions)]
        for row in rows
    ]
    return tables.markdown(head, cells)


if __name__ == "__main__":
    app.run(main)
