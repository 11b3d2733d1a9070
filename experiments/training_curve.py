"""Does longer training still move the numbers? Both AUROCs against training steps.

    python -m klip_jax.main --mode=train --workdir=DIR --config.train.recipe.keep=0
    python experiments/training_curve.py --workdir=DIR [--steps=500,1000,...]

For each checkpoint of a training on phantoms, its averaged weights become a prior, with
its own table of expected errors, and the default detector runs on the tuning phantoms
(--seed): the same images, noise and keys for all. Prints one JSON object; the first
point is the prior that the training started from. About 2 minutes a point on one core.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from aurocs import aurocs
from tqdm import tqdm

from klip_jax import checkpoint, run_train, train, workdir
from klip_jax.build import fill, load_prior
from klip_jax.data import phantom_set
from klip_jax.default_config import get_config
from klip_jax.detectors import klip
from klip_jax.operators.ct import ParallelBeam

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Of the training.", required=True)
flags.DEFINE_list("steps", [], "Checkpoints to look at; all if there are none named.")
flags.DEFINE_integer("per_group", 50, "Images with and without a lesion.")
flags.DEFINE_integer("seed", 5, "Of the tuning phantoms.")
NOISE_STD = 0.1


def main(_):
    settings = workdir.read_config(FLAGS.workdir)["config"]
    job = run_train.prepare(settings, FLAGS.workdir)
    like = train.init_state(job.params, job.recipe)
    manager = checkpoint.training_checkpoints(job.folder / "checkpoints", keep=0)
    steps = [int(step) for step in FLAGS.steps] or list(manager.all_steps())
    points = []
    if job.part["init"]:
        points.append({"steps": 0, **measure(load_prior(job.part["init"])[0])})
    for step in tqdm(steps, unit="checkpoint"):
        state = checkpoint.restore(manager, like, step)
        points.append({"steps": step, **measure(tabulated(job, state.ema))})
    print(json.dumps({"init": job.part["init"], "points": points}))


def tabulated(job, params):
    """Return the prior of `params` with its errors on held-out images."""
    levels = np.array(run_train.ERROR_LEVELS)
    prior = job.make_prior(params)
    errors = train.denoising_errors(prior, job.test_images, levels)
    prior.levels, prior.errors = jnp.float32(levels), jnp.float32(errors)
    return prior


def measure(prior):
    """Return both AUROCs of the default detector with `prior`, and its error at .1."""
    images = phantom_set.load(per_group=FLAGS.per_group, seed=FLAGS.seed)
    operator = ParallelBeam((64, 64, 1))
    settings = fill(klip.Settings, get_config().estimator.to_dict(), "estimator")
    keys = jax.random.split(jax.random.key(FLAGS.seed), len(images.ids))
    maps = [
        np.asarray(heatmap(prior, operator, key, x, settings))
        for key, x in zip(keys, images.images, strict=True)
    ]
    error = float(jnp.sqrt(prior.variance(jnp.float32(0.1))))
    found = aurocs(maps, images, block=settings.block, top=settings.top)
    return {"rms_error_at_0.1": error, **found}


@jax.jit(static_argnames="settings")
def heatmap(prior, operator, key, x, settings):
    key_noise, key = jax.random.split(key)
    y = operator(x) + NOISE_STD * jax.random.normal(key_noise, operator.out_shape)
    found = klip.estimate(key, y, operator, NOISE_STD, prior, settings)
    return klip.detection(found.levels, settings).heatmap


if __name__ == "__main__":
    app.run(main)
