"""How the default map was chosen: scale, emphasis and noise levels, on tuning images.

    python experiments/choose_settings.py --images=phantoms|slices|brain|faces

The images are those of `problems.py`, on which no result is reported. For every map,
scale and emphasis it prints the localization AUROC (inside eligible tissue united with
the mask) and the detection AUROC (mean of the largest 2 % of blocks), over all groups
and for each, and detection by other shares of blocks, as one JSON object, the best
localization first. About 4 seconds an image on one core.
"""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import problems
from absl import app, flags
from tqdm import tqdm

from klip_jax import kl, metrics
from klip_jax.detectors.klip import Settings, posterior_samples
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian

FLAGS = flags.FLAGS
flags.DEFINE_enum("images", "slices", problems.TUNED, "What to tune on.")
flags.DEFINE_integer("per_group", 30, "Images of each group.")
flags.DEFINE_integer("seed", 5, "Of the images; not one of the reported seeds.")
flags.DEFINE_string("weights", "", "Another prior than the one that is here.")
SCALES = (1.0, 2.0, 3.0)
EMPHASES = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
LEVELS = np.geomspace(0.02, 0.8, 8)
TOPS = (0.0, 0.1, 0.3, 1.0)
WINDOWS = {"0.02-0.1": (0.0, 0.1), "0.02-0.3": (0.0, 0.3), "0.02-0.8": (0.0, 1.0)}


def main(_):
    images = problems.tuning_images(FLAGS.images, FLAGS.per_group, FLAGS.seed)
    config = problems.config(FLAGS.images).to_dict()
    shape = images.images.shape[1:]
    prior, card, *measured = problems.scanner(config, shape, FLAGS.weights)
    plain, filtered = record(prior, *measured, images)
    rows = []
    for (name, window), (j, kind) in itertools.product(
        WINDOWS.items(), enumerate(kl.MAPS)
    ):
        inside = (LEVELS >= window[0]) & (LEVELS <= window[1])
        for i, scale in enumerate(SCALES):
            for emphasis in EMPHASES if kind != "guided" else (0.0,):
                if emphasis == 0.0 and i:
                    continue  # then the scale does not count
                parts = plain[:, inside, j], filtered[:, i, inside, j]
                maps = (1 - emphasis) * parts[0] + emphasis * parts[1]
                row = {"map": kind, "window": name, "scale": scale}
                row |= {"emphasis": emphasis} | aurocs(maps.sum(1), images)
                rows.append(row)
    rows.sort(key=lambda row: -row["localization"])
    last = card["training"]
    steps = sum(training["step"] for training in [*last.get("before", []), last])
    print(json.dumps({"images": FLAGS.images, "steps": steps, "rows": rows}))


def record(prior, operator, noise_std, images):
    """Return block maps, plain [N, K, 3, ...] and filtered [N, scales, K, 3, ...]."""
    settings = Settings()

    @jax.jit
    def maps_of(prior, operator, key, x):
        keys = jax.random.split(key, 3)
        y = operator(x) + noise_std * jax.random.normal(keys[0], operator.out_shape)
        likelihood = ConditionalGaussian(operator, y, noise_std, settings.inflation)
        samples = posterior_samples(keys[1], likelihood, prior, settings).x
        plain, *filtered = (
            kl.levels_kl(
                keys[2],
                prior,
                likelihood,
                samples,
                jnp.asarray(LEVELS),
                block=settings.block,
                scale=scale,
                emphasis=float(scale > 0),
            ).blocks
            for scale in (0.0, *SCALES)
        )
        return plain, jnp.stack(filtered)

    root = jax.random.key(0)
    found = [
        maps_of(prior, operator, jax.random.fold_in(root, i), x)
        for i, x in enumerate(tqdm(images.images, unit="image"))
    ]
    return tuple(np.stack(parts) for parts in zip(*found, strict=True))


def aurocs(block_maps, images):
    """Return localization and detection of block maps [N, H/b, W/b], also by group."""
    settings = Settings()
    masks, regions = (
        np.asarray(kl.block_sum(jnp.asarray(a, jnp.float32), settings.block)) > 0
        for a in (images.masks, images.eligible | images.masks)
    )
    scores = np.array([kl.top_mean(jnp.asarray(m), settings.top) for m in block_maps])
    groups = np.array(images.groups)
    kinds = [g for g in dict.fromkeys(images.groups) if g != "id"]
    found = {}
    for group in ("", *(kinds if len(kinds) > 1 else ())):
        ood = groups == group if group else groups != "id"
        few = ood | (groups == "id")
        inside = metrics.localization(block_maps[ood], masks[ood], regions[ood], 1)
        found[f"localization {group}".strip()] = round(float(inside), 3)
        between = metrics.auroc(scores[few], ood[few])
        found[f"detection {group}".strip()] = round(float(between), 3)
    for top in TOPS:
        scores = np.array([kl.top_mean(jnp.asarray(m), top) for m in block_maps])
        between = metrics.auroc(scores, groups != "id")
        found[f"detection, top {top:g}"] = round(float(between), 3)
    return found


if __name__ == "__main__":
    app.run(main)
