"""How the default map was chosen: scale, noise levels and samples, on tuning phantoms.

    python experiments/choose_settings.py [--per_group=32] [--weights=FILE]

Lesions in phantoms of a seed that no result is reported on. For every scale and map it
prints the localization AUROC (inside eligible tissue united with the mask) and the
detection AUROC (mean of the largest 2 % of blocks), for the whole window and for each
noise level alone, as one JSON object. About 5 minutes on two cores.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from tqdm import tqdm

from klip_jax import kl, metrics
from klip_jax.build import load_prior
from klip_jax.data import phantom_set
from klip_jax.detectors.klip import Settings, posterior_samples
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.operators.ct import ParallelBeam
from klip_jax.workdir import shipped

FLAGS = flags.FLAGS
flags.DEFINE_integer("per_group", 32, "Images with and without a lesion.")
flags.DEFINE_integer("seed", 5, "Of the anatomies; not one of the reported seeds.")
flags.DEFINE_string("weights", "", "Another prior than the shipped one.")
SCALES = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0)
LEVELS = np.geomspace(0.02, 0.8, 8)


def main(_):
    prior, card = load_prior(shipped(FLAGS.weights, "phantom_ct.safetensors"))
    operator, noise_std, settings = ParallelBeam((64, 64, 1)), 0.1, Settings()
    images = phantom_set.load(per_group=FLAGS.per_group, seed=FLAGS.seed)

    @jax.jit
    def maps_of(prior, operator, key, x):
        """Return the block maps [scale, level, map, H/b, W/b] of one image."""
        keys = jax.random.split(key, 3)
        noise = jax.random.normal(keys[0], operator.out_shape)
        likelihood = ConditionalGaussian(operator, operator(x) + noise_std * noise, 0.1)
        chains = posterior_samples(keys[1], likelihood, prior, settings)
        return jnp.stack(
            [
                kl.levels_kl(
                    keys[2],
                    prior,
                    likelihood,
                    chains.x,
                    jnp.asarray(LEVELS),
                    block=settings.block,
                    scale=scale,
                ).blocks
                for scale in SCALES
            ]
        )

    root = jax.random.key(0)
    maps = np.stack(
        [
            maps_of(prior, operator, jax.random.fold_in(root, i), x)
            for i, x in enumerate(tqdm(images.images, unit="image"))
        ]
    )
    low, high = settings.window
    window = (LEVELS >= low) & (LEVELS <= high)
    rows = []
    for i, scale in enumerate(SCALES):
        for j, name in enumerate(kl.MAPS):
            if name == "guided" and scale > 0:
                continue  # the guided energy is not filtered
            whole = auroc(maps[:, i, window, j].sum(1), images, settings)
            single = [auroc(maps[:, i, k, j], images, settings) for k in range(8)]
            rows.append({"map": name, "scale": scale, "window": whole})
            rows[-1]["levels"] = dict(
                zip(LEVELS.round(3).tolist(), single, strict=True)
            )
    last = card["training"]
    steps = sum(training["step"] for training in [*last.get("before", []), last])
    print(json.dumps({"window": settings.window, "steps": steps, "rows": rows}))


def auroc(block_maps, images, settings):
    """Return [localization, detection] of block maps [N, H/b, W/b]."""
    regions = images.eligible | images.masks
    masks, regions = (
        np.asarray(kl.block_sum(jnp.asarray(a, jnp.float32), settings.block)) > 0
        for a in (images.masks, regions)
    )
    scores = [float(kl.top_mean(jnp.asarray(m), settings.top)) for m in block_maps]
    ood = np.array([group != "id" for group in images.groups])
    found = (
        metrics.localization(block_maps, masks, regions, 1),
        metrics.auroc(np.array(scores), ood),
    )
    return [round(float(value), 3) for value in found]


if __name__ == "__main__":
    app.run(main)
