"""How much should the measurements weigh? A factor on the prior's expected error.

    python experiments/data_weight.py [--factors=1,3,10] [--per_group=30] [--weights=W]

The sampler takes p(x0 | x_s) for N(D, v I), v the mean squared error of the denoiser by
pixel. A scanner does not see all errors alike: as seen by A they are

    c = E|A (x0 - D)|^2 / (v E|A n|^2),   n white with variance 1,

times v. Prints one JSON object: c at each noise level on held-out phantoms; and for v
times each factor, at all levels, reconstruction error, misfit (1 under the model, see
`klip.Estimate`) and the AUROCs of every map on the tuning phantoms. About 2 minutes a
factor on one core.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from aurocs import aurocs
from tqdm import tqdm

from klip_jax import kl, metrics
from klip_jax.build import fill, load_prior
from klip_jax.data import phantom_set
from klip_jax.default_config import get_config
from klip_jax.detectors import klip
from klip_jax.operators.ct import ParallelBeam
from klip_jax.workdir import shipped

FLAGS = flags.FLAGS
flags.DEFINE_list("factors", ["1", "3", "10"], "On the expected squared error.")
flags.DEFINE_integer("per_group", 30, "Images with and without a lesion.")
flags.DEFINE_integer("seed", 5, "Of the tuning phantoms.")
flags.DEFINE_string("weights", "", "Another prior than the shipped one.")
NOISE_STD = 0.1
LEVELS = np.geomspace(0.01, 10.0, 7)


def main(_):
    weights = shipped(FLAGS.weights, "phantom_ct.safetensors")
    prior, operator = load_prior(weights)[0], ParallelBeam((64, 64, 1))
    seen = {f"{s:.3g}": float(factor_seen(prior, operator, s)) for s in LEVELS}
    images = phantom_set.load(per_group=FLAGS.per_group, seed=FLAGS.seed)
    rows = [measure(weights, operator, images, float(f)) for f in FLAGS.factors]
    print(json.dumps({"seen by the scanner": seen, "rows": rows}))


def factor_seen(prior, operator, sigma):
    """Return c at `sigma`, on phantoms that no training saw."""
    x = jnp.asarray(phantom_set.load(groups=("id",), per_group=48, seed=7).images)
    z, n = jax.random.normal(jax.random.key(1), (2, *x.shape))
    sigma = jnp.float32(sigma)

    @jax.jit
    def energies(prior, operator):
        errors = x - jax.vmap(prior, (0, None))(x + sigma * z, sigma)
        seen, white = (jnp.mean(jax.vmap(operator)(v) ** 2) for v in (errors, n))
        return seen / white / jnp.mean(errors**2)

    return energies(prior, operator)


def measure(weights, operator, images, factor):
    """Return what the default detector finds with v times `factor`."""
    prior, _ = load_prior(weights)
    prior.errors = factor * prior.errors
    settings = fill(klip.Settings, get_config().estimator.to_dict(), "estimator")
    keys = jax.random.split(jax.random.key(FLAGS.seed), len(images.ids))
    pairs = zip(keys, tqdm(images.images, desc=f"factor {factor:g}"), strict=True)
    found = [estimate(prior, operator, *pair, settings) for pair in pairs]
    maps, means, misfits = (np.stack(part) for part in zip(*found, strict=True))
    psnr = [metrics.psnr(x, mean) for x, mean in zip(images.images, means, strict=True)]
    row = {"factor": factor, "psnr": np.mean(psnr), "misfit": np.mean(misfits)}
    row = {k: float(v) for k, v in row.items()}
    return row | {name: aurocs(maps[:, i], images) for i, name in enumerate(kl.MAPS)}


@jax.jit(static_argnames="settings")
def estimate(prior, operator, key, x, settings):
    key_noise, key = jax.random.split(key)
    y = operator(x) + NOISE_STD * jax.random.normal(key_noise, operator.out_shape)
    found = klip.estimate(key, y, operator, NOISE_STD, prior, settings)
    return found.levels.heatmap, found.mean, found.misfit


if __name__ == "__main__":
    app.run(main)
