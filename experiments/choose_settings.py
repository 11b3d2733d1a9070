"""How the map's settings were chosen: its knobs and noise levels, on tuning images.

    python experiments/choose_settings.py --images=phantoms
    python experiments/choose_settings.py --images=slices,brain,faces

The images are those of `lab/problems.py`, on which no result is reported. For every
map, filter width and weight and pooling width it prints the localization AUROC (inside
eligible tissue united with the mask) and the detection AUROC (mean of the largest 2 %
of blocks), over all groups and for each, and detection by other shares of blocks, as
one JSON object. The largest sum of the two, over all sets of images, comes first: the
config's. About 3 seconds an image on one core."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from lab import problems
from lab.batches import over_images

from klip_jax import kl, localization, metrics
from klip_jax.blocks import block_sum, top_mean
from klip_jax.filters import pool
from klip_jax.posterior import PosteriorSampler
from klip_jax.scan import simulate

FLAGS = flags.FLAGS
flags.DEFINE_list("images", ["slices"], "What to tune on, of problems.TUNED.")
flags.DEFINE_integer("per_group", 30, "Images of each group.")
flags.DEFINE_integer("seed", 5, "Of the images; not one of the reported seeds.")
flags.DEFINE_string("weights", "", "Another prior than the one that is here.")
WIDTHS = (1.0, 2.0, 3.0, 5.0)
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
KNOBS = "map", "window", "filter_width", "filter_weight", "pool_width"
BLOCK, TOP_SHARE = 4, 0.02
LEVELS = np.geomspace(0.02, 0.8, 8)
POOLINGS = (0.0, 1.5, 3.0, 4.5, 6.0)
TOPS = (0.0, 0.1, 0.3, 1.0)
WINDOWS = {"0.02-0.1": (0.0, 0.1), "0.02-0.3": (0.0, 0.3), "0.02-0.8": (0.0, 1.0)}


def main(_):
    if unknown := set(FLAGS.images) - set(problems.TUNED):
        raise app.UsageError(f"--images={unknown}: choose of {problems.TUNED}")
    found = {name: numbers_of(name) for name in FLAGS.images}
    first = next(iter(found.values()))
    rows = [
        dict(zip(KNOBS, knobs, strict=True)) | {n: found[n][knobs] for n in found}
        for knobs in first
    ]
    questions = "localization", "detection"
    rows.sort(key=lambda row: -sum(row[n][q] for n in found for q in questions))
    print(json.dumps({"images": FLAGS.images, "rows": rows}))


def numbers_of(name):
    """Return {knobs: AUROCs} on one set of tuning images."""
    images = problems.tuning_images(name, FLAGS.per_group, FLAGS.seed)
    own = problems.setup(problems.settings(name), FLAGS.weights)
    maps_of_all = record(own.scanner, own.klip.guidance, images)
    found = {}
    for (window, ends), (j, kind) in itertools.product(
        WINDOWS.items(), enumerate(kl.MAPS)
    ):
        inside = (LEVELS >= ends[0]) & (LEVELS <= ends[1])
        for i, width in enumerate(WIDTHS):
            for weight in WEIGHTS if kind != "guided" else (0.0,):
                if weight == 0.0 and i:
                    continue  # then the width does not count
                plain, filtered = (
                    maps_of_all[:, inside, f, j].sum(1) for f in (0, i + 1)
                )
                maps = (1 - weight) * plain + weight * filtered
                for pooling in POOLINGS:
                    blocks = np.asarray(blocks_of(maps, pooling))
                    knobs = kind, window, width, weight, pooling
                    found[knobs] = aurocs(blocks, images)
    return found


def record(scanner, guidance, images):
    """Return maps, plain and filtered to each width [N, K, 1 + widths, 3, H, W]."""

    def maps_of(prior, operator, noise_std, sampler, guidance, key, x):
        keys = jax.random.split(key, 3)
        scan = simulate(keys[0], operator, x, noise_std)
        samples = sampler(keys[1], scan, prior).samples

        def at(level):
            index, sigma = level
            key_level = jax.random.fold_in(keys[2], index)
            energy, *means = kl.differences(
                key_level, prior, guidance, scan, samples, sigma
            )
            maps = [
                [energy.mean(0), *(kl.coherent(v, w, float(w > 0))[0] for v in means)]
                for w in (0.0, *WIDTHS)
            ]
            return jnp.stack([jnp.stack(m) for m in maps]).sum(-1) / sigma**2

        return jax.lax.map(at, (jnp.arange(len(LEVELS)), jnp.float32(LEVELS)))

    root = jax.random.key(0)
    keys = [jax.random.fold_in(root, i) for i in range(len(images))]
    shared = *scanner, PosteriorSampler(), guidance
    return np.stack(list(over_images(maps_of, shared, keys, images.images)))


@jax.jit
def blocks_of(maps, width):
    return block_sum(pool(maps, width), BLOCK)


def scores_of(block_maps, top):
    """Return the mean of the largest blocks of each map [N]."""
    return np.asarray(jax.vmap(lambda m: top_mean(m, top))(jnp.asarray(block_maps)))


def aurocs(block_maps, images):
    """Return localization and detection of block maps [N, H/b, W/b], also by group."""
    masks, regions = (
        np.asarray(block_sum(jnp.asarray(a, jnp.float32), BLOCK)) > 0
        for a in (images.masks, images.eligible | images.masks)
    )
    scores = scores_of(block_maps, TOP_SHARE)
    groups = np.array(images.groups)
    kinds = [g for g in dict.fromkeys(images.groups) if g != "id"]
    found = {}
    for group in ("", *(kinds if len(kinds) > 1 else ())):
        ood = groups == group if group else groups != "id"
        few = ood | (groups == "id")
        inside = localization.localization(block_maps[ood], masks[ood], regions[ood], 1)
        found[f"localization {group}".strip()] = round(float(inside), 3)
        between = metrics.auroc(scores[few], ood[few])
        found[f"detection {group}".strip()] = round(float(between), 3)
    for top in TOPS:
        scores = scores_of(block_maps, top)
        between = metrics.auroc(scores, groups != "id")
        found[f"detection, top {top:g}"] = round(float(between), 3)
    return found


if __name__ == "__main__":
    app.run(main)
