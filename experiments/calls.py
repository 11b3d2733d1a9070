"""How many network calls are needed: both AUROCs against samples, steps and levels.

    python experiments/calls.py --images=slices|phantoms|brain|faces [--per_group=30]

Around the config's detector one number changes at a time: N posterior samples, T steps
of their sampler, K noise levels of the window, and whether each noise draw is used with
both signs; and all at once for 39 calls, a twentieth of KLIP as released. Tuning images
(`lab/problems.py`) and keys are the same for every row.
Prints one JSON object and writes results/calls_<images>.md; the figure goes to
--workdir. About 10 seconds an image on one core.
"""

import functools
import json
from pathlib import Path

import jax
from absl import app, flags
from choose_settings import FLAGS
from lab import pictures, problems, tables
from lab.aurocs import aurocs
from lab.batches import over_images
from tqdm import tqdm

from klip_jax import kl, sde
from klip_jax.files import write_atomically
from klip_jax.scan import simulate

flags.DEFINE_string("workdir", "runs/calls", "Where the figure goes.")
CHANGES = {
    "samples": (3, 4, 8, 12),
    "steps": (5, 10, 40),
    "levels": (2, 3, 12),
}
# A twentieth of KLIP as released: two levels, where the signal is.
CHEAP = dict(samples=3, steps=9, levels=2, window=(0.05, 0.2))
BOTH = 1.0, -1.0


def main(_):
    (name,) = FLAGS.images
    images = problems.tuning_images(name, FLAGS.per_group, FLAGS.seed)
    own = problems.setup(problems.settings(name), FLAGS.weights)
    keys = jax.random.split(jax.random.key(FLAGS.seed), len(images))
    asked = [({}, BOTH), ({}, (1.0,))]
    for knob, values in CHANGES.items():
        asked += [({knob: value}, BOTH) for value in values]
    found = []
    for changes, signs in tqdm([*asked, (CHEAP, BOTH)], unit="setting"):
        sampler, klip = changed(own, **changes)
        shared = *own.scanner, sampler, klip
        of_one = functools.partial(heatmap, signs=signs)
        maps = list(over_images(of_one, shared, keys, images.images))
        row = dict(
            samples=sampler.samples,
            steps=sampler.steps,
            levels=klip.level_count,
            signs=len(signs),
            window="{:g}-{:g}".format(*klip.window),
            network_calls=sampler.network_calls
            + sampler.samples * klip.level_count * len(signs),
        )
        found.append(row | aurocs(maps, images))
    figure = pictures.against_calls(found, (*CHANGES, "signs"))
    found.sort(key=lambda row: row["network_calls"])
    path = Path(__file__).resolve().parent / "results" / f"calls_{name}.md"
    write_atomically(path, table(found).encode())
    write_atomically(Path(FLAGS.workdir) / f"{name}.png", figure)
    print(json.dumps({"images": name, "rows": found}))


def changed(own, samples=None, steps=None, levels=None, window=None):
    """Return (sampler, klip) of a setup with some numbers changed."""
    sampler, klip = own.sampler, own.klip
    return (
        sampler.replace(
            samples=samples or sampler.samples, steps=steps or sampler.steps
        ),
        klip.replace(
            level_count=levels or klip.level_count, window=window or klip.window
        ),
    )


def heatmap(prior, operator, noise_std, sampler, klip, key, x, signs):
    """Return the config's map of one image, with `signs` of each noise draw. Pure."""
    key_noise, key_samples, key_levels = jax.random.split(key, 3)
    scan = simulate(key_noise, operator, x, noise_std)
    found = kl.levels_kl(
        key_levels,
        prior,
        klip.guidance,
        scan,
        sampler(key_samples, scan, prior).samples,
        sde.log_levels(klip.level_count, *klip.window),
        filter_width=klip.filter_width,
        filter_weight=klip.filter_weight,
        pool_width=klip.pool_width,
        signs=signs,
    )
    return found.heatmap[kl.MAPS.index(klip.map)]


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
