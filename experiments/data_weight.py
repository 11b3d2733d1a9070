"""How much should the measurements weigh? The inflation of the prior's expected error.

    python experiments/data_weight.py --images=phantoms|slices|brain|faces

The sampler takes p(x0 | x_s) for N(D, v I), v the mean squared error of the denoiser by
pixel, times `inflation`. What is sought is the one at which posterior samples miss the
measurements as noise does: misfit 1 (`klip.Estimate`). That needs no labels. Prints one
JSON object with, for each inflation, reconstruction error, misfit and the AUROCs of
every map on the tuning images of `problems.py`; and, on the in-distribution ones
among them, the errors as A sees them at each noise level,

    c = E|A (x0 - D)|^2 / (v E|A n|^2),   n white with variance 1.

About 2 seconds an image on one core.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import problems
from absl import app, flags
from aurocs import aurocs
from choose_settings import FLAGS
from tqdm import tqdm

from klip_jax import kl, metrics
from klip_jax.build import fill
from klip_jax.detectors import klip

flags.DEFINE_list("inflations", ["1", "2", "4"], "Those to try.")
LEVELS = np.geomspace(0.01, 10.0, 7)


def main(_):
    (name,) = FLAGS.images
    images = problems.tuning_images(name, FLAGS.per_group, FLAGS.seed)
    config = problems.config(name).to_dict()
    shape = images.images.shape[1:]
    prior, _, *measured = problems.scanner(config, shape, FLAGS.weights)
    operator = measured[0]
    healthy = images.images[np.array(images.groups) == "id"]
    seen = {f"{s:.3g}": float(seen_by(operator, prior, healthy, s)) for s in LEVELS}
    rows = []
    for inflation in map(float, FLAGS.inflations):
        settings = config["estimator"] | {"inflation": inflation}
        settings = fill(klip.Settings, settings, "estimator")
        rows.append(measure(prior, *measured, images, settings))
    print(json.dumps({"seen by the scanner": seen, "rows": rows}))


def seen_by(operator, prior, x, sigma):
    """Return c at `sigma` for images x [N, H, W, C]."""
    z, n = jax.random.normal(jax.random.key(1), (2, *x.shape))
    sigma = jnp.float32(sigma)

    @jax.jit
    def energies(prior, operator):
        errors = x - jax.vmap(prior, (0, None))(x + sigma * z, sigma)
        seen, white = (jnp.mean(jax.vmap(operator)(v) ** 2) for v in (errors, n))
        return seen / white / jnp.mean(errors**2)

    return energies(prior, operator)


def measure(prior, operator, noise_std, images, settings):
    """Return what the config's detector finds with these settings."""
    keys = jax.random.split(jax.random.key(FLAGS.seed), len(images.ids))
    pairs = zip(keys, tqdm(images.images, desc=f"{settings.inflation:g}"), strict=True)
    found = [estimate(prior, operator, noise_std, *pair, settings) for pair in pairs]
    maps, means, misfits = (np.stack(part) for part in zip(*found, strict=True))
    psnr = [metrics.psnr(x, mean) for x, mean in zip(images.images, means, strict=True)]
    row = {"psnr": np.mean(psnr), "misfit": np.mean(misfits)}
    row = {"inflation": settings.inflation} | {k: float(v) for k, v in row.items()}
    return row | {name: aurocs(maps[:, i], images) for i, name in enumerate(kl.MAPS)}


@jax.jit(static_argnames="settings")
def estimate(prior, operator, noise_std, key, x, settings):
    key_noise, key = jax.random.split(key)
    y = operator(x) + noise_std * jax.random.normal(key_noise, operator.out_shape)
    found = klip.estimate(key, y, operator, noise_std, prior, settings)
    return found.levels.heatmap, found.mean, found.misfit


if __name__ == "__main__":
    app.run(main)
