"""How much should the measurements weigh? The inflation of the prior's expected error.

    python experiments/data_weight.py --images=phantoms|slices|brain|faces

The sampler takes p(x0 | x_s) for N(D, v I), v the mean squared error of the denoiser by
pixel, times `prior_inflation`. What is sought is the one at which posterior samples
miss the measurements as noise does: misfit 1 (`types.Posterior`). That needs no labels.
Prints one JSON object with, for each inflation, reconstruction error, misfit and the
AUROCs of every map on the tuning images of `lab/problems.py`; and, on the
in-distribution ones among them, the errors as A sees them at each noise level,

    c = E|A (x0 - D)|^2 / (v E|A n|^2),   n white with variance 1.

About 2 seconds an image on one core.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from choose_settings import FLAGS
from lab import problems
from lab.aurocs import aurocs
from lab.batches import over_images

from klip_jax import kl, metrics, sde
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.scan import simulate

flags.DEFINE_list("inflations", ["1", "2", "4"], "Those to try.")
LEVELS = np.geomspace(0.01, 10.0, 7)


def main(_):
    (name,) = FLAGS.images
    images = problems.tuning_images(name, FLAGS.per_group, FLAGS.seed)
    own = problems.setup(problems.settings(name), FLAGS.weights)
    healthy = images.images[np.array(images.groups) == "id"]
    seen = {f"{s:.3g}": float(seen_by(*own.scanner[1::-1], healthy, s)) for s in LEVELS}
    rows = [measure(own, float(inflation), images) for inflation in FLAGS.inflations]
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


def measure(own, inflation, images):
    """Return what the config's detector finds with this inflation."""
    guidance = ConditionalGaussian(inflation)
    sampler, klip = (
        part.replace(guidance=guidance) for part in (own.sampler, own.klip)
    )
    keys = jax.random.split(jax.random.key(FLAGS.seed), len(images))
    shared = *own.scanner, sampler, klip
    found = over_images(maps_of, shared, keys, images.images, desc=f"{inflation:g}")
    maps, means, misfits = (np.stack(part) for part in zip(*found, strict=True))
    psnr = [metrics.psnr(x, mean) for x, mean in zip(images.images, means, strict=True)]
    row = {"psnr": np.mean(psnr), "misfit": np.mean(misfits)}
    row = {"inflation": inflation} | {k: float(v) for k, v in row.items()}
    return row | {name: aurocs(maps[:, i], images) for i, name in enumerate(kl.MAPS)}


def maps_of(prior, operator, noise_std, sampler, klip, key, x):
    """Return (every map, mean of the samples, misfit) of one image. Pure."""
    key_noise, key = jax.random.split(key)
    key_samples, key_levels = jax.random.split(key)
    scan = simulate(key_noise, operator, x, noise_std)
    posterior = sampler(key_samples, scan, prior)
    levels = sde.log_levels(klip.level_count, *klip.window)
    filters = "filter_width", "filter_weight", "pool_width"
    found = kl.levels_kl(
        key_levels,
        prior,
        klip.guidance,
        scan,
        posterior.samples,
        levels,
        **{name: getattr(klip, name) for name in filters},
    )
    return found.heatmap, posterior.mean, posterior.misfit


if __name__ == "__main__":
    app.run(main)
