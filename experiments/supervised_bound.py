"""What the measurements allow: a network trained on the very lesions it is tested on.

    python experiments/supervised_bound.py [--steps=3000] [--workdir=DIR]

The prior's U-Net as a classifier of pixels: two linear reconstructions of y in, the
logit of "inside the lesion" out, binary cross-entropy, an endless stream of phantoms of
which every second holds a lesion. It is told size, shape, contrast and place of what it
looks for; a detector that is told nothing should not be expected to do better.

Prints one JSON object: localization and detection of the averaged weights against
training steps, on the tuning phantoms (--seed), and of the last weights on the phantoms
that phantom_detection.py reports (--test_seed). A killed run continues. About 50
minutes on one core.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from absl import app, flags
from aurocs import aurocs
from tqdm import tqdm

from klip_jax import checkpoint, train
from klip_jax.data import phantom_set
from klip_jax.data.anomalies import draw
from klip_jax.data.base import Source
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.nets.unet import UNet
from klip_jax.operators.ct import ParallelBeam

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 3000, "Optimiser steps of 32 images.")
flags.DEFINE_integer("every", 500, "Steps between two points of the curve.")
flags.DEFINE_integer("per_group", 100, "Test images with and without a lesion.")
flags.DEFINE_integer("seed", 5, "Of the tuning phantoms.")
flags.DEFINE_integer("test_seed", 31, "Of the phantoms that are reported.")
flags.DEFINE_string("workdir", "runs/supervised_bound", "Checkpoints and logs.")
NOISE_STD = 0.1
SPREADS = (0.03, 0.3)  # of the white priors that the two reconstructions assume
NET = UNet()


def main(_):
    operator = ParallelBeam((64, 64, 1))
    params = NET.init(jax.random.key(0), jnp.zeros((64, 64, 2)), jnp.float32(0))
    recipe = train.Recipe(steps=FLAGS.steps, checkpoint_every=FLAGS.every, keep=0)
    last = train.train(FLAGS.workdir, params, Source(example, operator), loss, recipe)
    manager = checkpoint.training_checkpoints(Path(FLAGS.workdir) / "checkpoints")
    curve = [
        {"steps": step, **evaluate(state.ema, operator, FLAGS.seed)}
        for step in tqdm(manager.all_steps(), unit="checkpoint")
        for state in [checkpoint.restore(manager, last, step)]
    ]
    test = evaluate(last.ema, operator, FLAGS.test_seed)
    print(json.dumps({"tuning_phantoms": curve, "test_phantoms": test}))


def example(operator, key):
    """Draw (pictures [H, W, 2], mask [H, W]) of one phantom."""
    key_kind, key_anatomy, key_noise = jax.random.split(key, 3)
    # Both kinds are views of one anatomy, which XLA draws once.
    kinds = [draw(key_anatomy, kind) for kind in ("id", "lesion")]
    sick = jax.random.bernoulli(key_kind)
    found = jax.tree.map(lambda *pair: jnp.where(sick, pair[1], pair[0]), *kinds)
    return pictures(operator, key_noise, found.image), found.mask


def pictures(operator, key, x):
    """Measure x and return its mean under two white Gaussian priors [H, W, 2]."""
    y = operator(x) + NOISE_STD * jax.random.normal(key, operator.out_shape)
    likelihood = ConditionalGaussian(operator, y, NOISE_STD)
    start = jnp.zeros_like(x)
    return jnp.concatenate(
        [likelihood.conditional_shift(start, jnp.float32(s) ** 2) for s in SPREADS], -1
    )


def logits(params, images):
    return NET.apply(params, 2 * images - 1, jnp.float32(0))[..., 0]


def loss(params, batch, key):
    del key
    images, masks = batch
    found = jax.vmap(logits, (None, 0))(params, images)
    return optax.sigmoid_binary_cross_entropy(found, masks).mean()


@jax.jit
def probabilities(params, operator, key, x):
    return jax.nn.sigmoid(logits(params, pictures(operator, key, x)))


def evaluate(params, operator, seed):
    """Return both AUROCs with bootstrap intervals on phantoms of `seed`."""
    images = phantom_set.load(per_group=FLAGS.per_group, seed=seed)
    keys = jax.random.split(jax.random.key(seed), len(images.ids))
    pairs = zip(keys, images.images, strict=True)
    return aurocs([probabilities(params, operator, *pair) for pair in pairs], images)


if __name__ == "__main__":
    app.run(main)
