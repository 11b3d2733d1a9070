"""What the measurements allow: a network trained on the very lesions it is tested on.

    python experiments/supervised_bound.py [--steps=2000] [--workdir=DIR]

The prior's U-Net, starting from its weights, as a classifier of pixels: a linear
reconstruction of y in, the logit of "inside the lesion" out, binary cross-entropy, an
endless stream of phantoms of which three in four hold a lesion. It is told size, shape,
contrast and place of what it looks for; a detector that is told nothing should not be
expected to do better. (Started from random weights it learns much more slowly.)

Prints one JSON object: localization and detection of the averaged weights against
training steps, on the tuning phantoms (--seed), and of the last weights on the phantoms
that phantom_detection.py reports (--test_seed). A killed run continues. About 35
minutes on one core.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
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
from klip_jax.workdir import shipped

FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 2000, "Optimiser steps of 32 images.")
flags.DEFINE_integer("every", 500, "Steps between two points of the curve.")
flags.DEFINE_integer("per_group", 100, "Test images with and without a lesion.")
flags.DEFINE_integer("seed", 5, "Of the tuning phantoms.")
flags.DEFINE_integer("test_seed", 31, "Of the phantoms that are reported.")
flags.DEFINE_string("workdir", "runs/supervised_bound", "Checkpoints and logs.")
flags.DEFINE_string("weights", "", "Another prior to start from than the shipped one.")
NOISE_STD = 0.1
SPREAD = 0.1  # of the white prior that the reconstruction assumes
LEVEL = 0.2  # noise level that the network is told, in its range [-1, 1]
NET = UNet()


def main(_):
    operator = ParallelBeam((64, 64, 1))
    recipe = train.Recipe(
        steps=FLAGS.steps, learning_rate=5e-4, checkpoint_every=FLAGS.every, keep=0
    )
    source = Source(example, operator)
    last = train.train(FLAGS.workdir, initial(), source, loss, recipe)
    manager = checkpoint.training_checkpoints(Path(FLAGS.workdir) / "checkpoints")
    curve = [
        {"steps": step, **evaluate(state.ema, operator, FLAGS.seed)}
        for step in tqdm(manager.all_steps(), unit="checkpoint")
        for state in [checkpoint.restore(manager, last, step)]
    ]
    test = evaluate(last.ema, operator, FLAGS.test_seed)
    print(json.dumps({"tuning_phantoms": curve, "test_phantoms": test}))


def initial():
    """Return the prior's weights with a new last layer: rare everywhere."""
    weights, _ = checkpoint.load_weights(
        shipped(FLAGS.weights, "phantom_ct.safetensors")
    )
    weights = jax.tree.map(jnp.asarray, weights)
    head = max(
        (k for k in weights["params"] if k.startswith("Conv_")),
        key=lambda k: int(k.removeprefix("Conv_")),
    )
    zeros = jax.tree.map(jnp.zeros_like, weights["params"][head])
    weights["params"][head] = zeros | {"bias": zeros["bias"] - 5.0}
    return weights


def example(operator, key):
    """Draw (reconstruction [H, W, 1], mask [H, W]) of one phantom."""
    key_kind, key_anatomy, key_noise = jax.random.split(key, 3)
    # Both kinds are views of one anatomy, which XLA draws once.
    kinds = [draw(key_anatomy, kind) for kind in ("id", "lesion")]
    sick = jax.random.bernoulli(key_kind, 0.75)
    found = jax.tree.map(lambda *pair: jnp.where(sick, pair[1], pair[0]), *kinds)
    return reconstruction(operator, key_noise, found.image), found.mask


def reconstruction(operator, key, x):
    """Measure x and return its mean under a white Gaussian prior [H, W, 1]."""
    y = operator(x) + NOISE_STD * jax.random.normal(key, operator.out_shape)
    start = jnp.full_like(x, 0.5)
    likelihood = ConditionalGaussian(operator, y, NOISE_STD)
    return start + likelihood.conditional_shift(start, jnp.float32(SPREAD**2))


def logits(params, image):
    """Return the logits [H, W], the network in the coordinates of `priors.edm.EDM`."""
    x = (2 * image - 1) / np.sqrt(LEVEL**2 + 0.25)
    return NET.apply(params, x, jnp.float32(np.log(LEVEL) / 4))[..., 0]


def loss(params, batch, key):
    del key
    images, masks = batch
    found = jax.vmap(logits, (None, 0))(params, images)
    return optax.sigmoid_binary_cross_entropy(found, masks).mean()


@jax.jit
def probabilities(params, operator, key, x):
    return jax.nn.sigmoid(logits(params, reconstruction(operator, key, x)))


def evaluate(params, operator, seed):
    """Return both AUROCs with bootstrap intervals on phantoms of `seed`."""
    images = phantom_set.load(per_group=FLAGS.per_group, seed=seed)
    keys = jax.random.split(jax.random.key(seed), len(images.ids))
    pairs = zip(keys, images.images, strict=True)
    return aurocs([probabilities(params, operator, *pair) for pair in pairs], images)


if __name__ == "__main__":
    app.run(main)
