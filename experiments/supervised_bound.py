"""What the measurements allow: a network trained on the very anomalies it looks for.

    python experiments/supervised_bound.py --images=phantoms|slices [--steps=2400]

The prior's U-Net, starting from its weights, as a classifier of pixels: a linear
reconstruction of y in, the logit of "inside the anomaly" out, binary cross-entropy, an
endless stream of images of which three in four hold an anomaly. It is told what it
looks for; a detector that is told nothing should not be expected to do better. (Started
from random weights it learns much more slowly.)

Phantoms: lesions of the law of the test's. Slices: augmented images of the train split
but its last tenth, with lesions, gratings and bad views simulated there.

Prints one JSON object: localization and detection of the averaged weights against
training steps, on tuning images (phantoms of --seed; the last tenth of the train split
with simulated anomalies), and of the last weights on test images, all of them and by
group (the phantoms of phantom_detection.py; abdomen_ood_64). A killed run continues.
About 40 minutes on one core.
"""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from aurocs import aurocs, image_scores
from tqdm import tqdm

from klip_jax import checkpoint, train
from klip_jax.data import npz, phantom_set, simulated
from klip_jax.data.anomalies import draw
from klip_jax.data.augment import Augment, augment
from klip_jax.data.base import ImageSet, Source
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.nets.unet import UNet
from klip_jax.operators.ct import ParallelBeam
from klip_jax.workdir import shipped

FLAGS = flags.FLAGS
flags.DEFINE_enum("images", "phantoms", ["phantoms", "slices"], "What to train on.")
flags.DEFINE_integer("steps", 2400, "Optimiser steps of 32 images.")
flags.DEFINE_integer("every", 300, "Steps between two points of the curve.")
flags.DEFINE_integer("per_group", 100, "Tuning and test images of each group.")
flags.DEFINE_integer("seed", 5, "Of the tuning images.")
flags.DEFINE_string("workdir", "runs/supervised_bound", "Checkpoints and logs.")
flags.DEFINE_string("weights", "", "Another prior to start from than the shipped one.")
NOISE_STD = 0.1
SPREAD = 0.1  # of the white prior that the reconstruction assumes
LEVEL = 0.2  # noise level that the network is told, in its range [-1, 1]
NET = UNet(norm_over="image")
GREYS = dict(offset=50.0, scale=205.0)
TISSUE = (0.3, 0.75)  # greys of the slices that may hold a simulated anomaly
AUGMENT = Augment(shift=3.0, stretch=0.1, mirror=0.5, contrast=0.05, brightness=0.02)


class Task(NamedTuple):
    """Images to learn from, to watch and to report, and the prior to start from.

    Attributes:
      source: its `draw` gives (reconstruction [H, W, 1], mask [H, W]).
      tuning, test: with masks and eligible tissue.
      weights: path of the prior.
    """

    source: Source
    tuning: ImageSet
    test: ImageSet
    weights: str


def main(_):
    operator = ParallelBeam((64, 64, 1))
    task = {"phantoms": phantoms, "slices": slices}[FLAGS.images](operator)
    recipe = train.Recipe(
        steps=FLAGS.steps, learning_rate=5e-4, checkpoint_every=FLAGS.every, keep=0
    )
    last = train.train(FLAGS.workdir, initial(task), task.source, loss, recipe)
    manager = checkpoint.training_checkpoints(Path(FLAGS.workdir) / "checkpoints")
    curve = [
        {"steps": step, **evaluate(state.ema, operator, task.tuning)["all"]}
        for step in tqdm(manager.all_steps(), unit="checkpoint")
        for state in [checkpoint.restore(manager, last, step)]
    ]
    test = evaluate(last.ema, operator, task.test)
    print(json.dumps({"images": FLAGS.images, "tuning": curve, "test": test}))


def phantoms(operator):
    """Return the task on phantoms with lesions."""

    def example(operator, key):
        key_kind, key_anatomy, key_noise = jax.random.split(key, 3)
        # Both kinds are views of one anatomy, which XLA draws once.
        kinds = [draw(key_anatomy, kind) for kind in ("id", "lesion")]
        sick = jax.random.bernoulli(key_kind, 0.75)
        found = jax.tree.map(lambda *pair: jnp.where(sick, pair[1], pair[0]), *kinds)
        return reconstruction(operator, key_noise, found.image), found.mask

    tuning, test = (
        phantom_set.load(per_group=FLAGS.per_group, seed=seed)
        for seed in (FLAGS.seed, 31)  # 31: of phantom_detection.py
    )
    weights = shipped(FLAGS.weights, "phantom_ct.safetensors")
    return Task(Source(example, operator), tuning, test, weights)


def slices(operator):
    """Return the task on abdominal CT with simulated anomalies."""
    train_split = dict(file="abdomen_ct_64.npz", split="train", **GREYS)
    known = npz.load(part=(0.0, 0.9), **train_split)
    kinds = tuple(simulated.KINDS.values())

    def healthy(key, image, eligible):
        del key
        return image, jnp.zeros_like(eligible)

    def example(arrays, key):
        images, operator = arrays
        keys = jax.random.split(key, 5)
        image = images[jax.random.randint(keys[0], (), 0, len(images))]
        image = augment(keys[1], image, AUGMENT)
        kind = jax.random.randint(keys[2], (), 0, 1 + len(kinds))
        image, mask = jax.lax.switch(
            kind, (healthy, *kinds), keys[3], image, simulated.tissue(image, TISSUE)
        )
        return reconstruction(operator, keys[4], image), mask

    tuning = simulated.load(
        part=(0.9, 1.0),
        greys=TISSUE,
        groups=tuple(simulated.KINDS),
        per_group=FLAGS.per_group,
        seed=FLAGS.seed,
        **train_split,
    )
    test = npz.load(
        file="abdomen_ood_64.npz",
        groups=("id", "lesion_low", "lesion_mid", "lesion_high", "texture", "streak"),
        per_group=FLAGS.per_group,
        **GREYS,
    )
    source = Source(example, (jnp.asarray(known.images), operator))
    weights = FLAGS.weights or "checkpoints/abdomen_ct_64.safetensors"
    return Task(source, tuning, test, weights)


def initial(task):
    """Return the prior's weights with a new last layer: rare everywhere."""
    weights, _ = checkpoint.load_weights(task.weights)
    weights = jax.tree.map(jnp.asarray, weights)
    head = max(
        (k for k in weights["params"] if k.startswith("Conv_")),
        key=lambda k: int(k.removeprefix("Conv_")),
    )
    zeros = jax.tree.map(jnp.zeros_like, weights["params"][head])
    weights["params"][head] = zeros | {"bias": zeros["bias"] - 5.0}
    return weights


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


def evaluate(params, operator, images):
    """Return {"all" or group: both AUROCs with intervals, and the power}.

    The power is the share of a group above the 95 % quantile of the images without an
    anomaly.
    """
    keys = jax.random.split(jax.random.key(FLAGS.seed), len(images.ids))
    pairs = zip(keys, images.images, strict=True)
    maps = np.stack([probabilities(params, operator, *pair) for pair in pairs])
    groups, scores = np.array(images.groups), image_scores(maps)
    alarm = np.quantile(scores[groups == "id"], 0.95)
    found = {"all": aurocs(maps, images)}
    for group in dict.fromkeys(images.groups):
        if group != "id":
            some = np.flatnonzero((groups == group) | (groups == "id"))
            found[group] = aurocs(maps[some], images.take(some))
            found[group]["power at 5 %"] = float(
                np.mean(scores[groups == group] > alarm)
            )
    return found


if __name__ == "__main__":
    app.run(main)
