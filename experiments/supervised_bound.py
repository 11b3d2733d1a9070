"""What the measurements allow: a network trained on the very anomalies it looks for.

    python experiments/supervised_bound.py --images=phantoms|slices|brain|faces

The prior's U-Net, starting from its weights, as a classifier of pixels: a linear
reconstruction of y in, the logit of "inside the anomaly" out, binary cross-entropy, an
endless stream of images with and without anomalies (`lab/bound_tasks.py`): lesions of
the test's law in phantoms, anomalies simulated in training images, and for the brain
real tumours of the training patients. It is told what it looks for; a detector that is
told nothing should not be expected to do better. (Started from random weights it learns
much more slowly.)

Its maps are pooled like ours, as far as is best on the tuning images of
`lab/problems.py`. Prints one JSON object: localization and detection of the averaged
weights against training steps, on the tuning images, and of the last weights on test
images, all of them and by group: phantoms of phantom_detection.py, or the images of the
benchmark of detection.py that has these images, whose table then has a row for it. A
killed run continues. About 40 minutes on one core."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from lab import benchmarks, problems, scores
from lab.aurocs import aurocs, image_scores
from lab.batches import over_images
from lab.bound_tasks import reconstruction, task
from lab.detectors import BOUND
from lab.runs import smooth
from tqdm import tqdm

from klip_jax import checkpoint, hub
from klip_jax.config import build
from klip_jax.phantoms import phantom_set
from klip_jax.recipe import DTYPES, Cast, Recipe
from klip_jax.run import steps

FLAGS = flags.FLAGS
flags.DEFINE_enum("images", "phantoms", problems.TUNED, "What to train on.")
flags.DEFINE_integer("steps", 2000, "Optimiser steps.")
flags.DEFINE_integer("batch", 32, "Images a step.")
flags.DEFINE_enum("dtype", "float32", DTYPES, "Of the network's arithmetic.")
flags.DEFINE_integer("every", 500, "Steps between two points of the curve.")
flags.DEFINE_integer("per_group", 100, "Tuning images of each group, and phantoms.")
flags.DEFINE_integer("seed", 5, "Of the tuning images.")
flags.DEFINE_string("workdir", "runs/supervised_bound", "Checkpoints and logs.")
flags.DEFINE_string("weights", "", "Another prior to start from than the config's.")
POOLINGS = (0.0, 1.5, 3.0, 4.5)
LEVEL = 0.2  # noise level that the network is told, in its range [-1, 1]


def main(_):
    own = task(FLAGS.images, FLAGS.per_group, FLAGS.seed)
    recipe = Recipe(
        steps=FLAGS.steps,
        batch=FLAGS.batch,
        learning_rate=5e-4,
        dtype=FLAGS.dtype,
        checkpoint_every=FLAGS.every,
        keep=0,
    )
    recipe.check()
    weights = hub.find(FLAGS.weights or own.weights)
    start, net = initial(weights)

    def loss(params, examples, key):
        net_of = Cast(net, recipe.dtype)
        return cross_entropy(net_of, params, examples, key), {}

    folder = Path(FLAGS.workdir) / FLAGS.images
    last = steps.train(folder, start, own.source, loss, recipe)
    record = {"net": checkpoint.load_weights(weights)[1]["net"], "task": FLAGS.images}
    checkpoint.save_weights(folder / "weights.safetensors", last.ema, record)
    manager = checkpoint.training_checkpoints(folder / "checkpoints")
    scanner = own.operator, own.noise_std
    seen = {
        step: maps(net, state.ema, *scanner, own.tuning)
        for step in tqdm(manager.all_steps(), unit="checkpoint")
        for state in [checkpoint.restore(manager, last, step)]
    }
    width = best_pooling(seen[FLAGS.steps], own.tuning)
    curve = {n: evaluate(smooth(m, width), own.tuning) for n, m in seen.items()}
    images, names = test_images()
    found = smooth(maps(net, last.ema, *scanner, images), width)
    rows = scores.rows(images, BOUND, 1, image_scores(found), heatmaps=found)
    for path in filter(Path.is_file, map(scores.path_of, names)):
        scores.write(path, scores.replaced(scores.read(path), rows))
    numbers = {"tuning by steps": curve, "test": evaluate(found, images)}
    print(json.dumps({"images": FLAGS.images, "pooling": width, **numbers}))


def best_pooling(found, images):
    """Return the width, pixels, that makes both AUROCs of the maps largest."""

    def total(width):
        numbers = aurocs(smooth(found, width), images)
        return sum(number["value"] for number in numbers.values())

    return max(POOLINGS, key=total)


def test_images():
    """Return the test images and the benchmarks whose tables show them."""
    every = benchmarks.BENCHMARKS.items()
    names = [name for name, own in every if own.bounded == FLAGS.images]
    if not names:
        # 31: of phantom_detection.py
        return phantom_set.load(per_group=FLAGS.per_group, seed=31), ()
    return problems.images(benchmarks.settings(names[0])), names


def initial(path):
    """Return the prior's weights with a last layer that says "rare", and its net."""
    weights, record = checkpoint.load_weights(path)
    weights = jax.tree.map(jnp.asarray, weights)
    head = max(
        (k for k in weights["params"] if k.startswith("Conv_")),
        key=lambda k: int(k.removeprefix("Conv_")),
    )
    zeros = jax.tree.map(jnp.zeros_like, weights["params"][head])
    weights["params"][head] = zeros | {"bias": zeros["bias"] - 5.0}
    return weights, build("nets", record["net"])


def logits(net, params, image):
    """Return the logits [H, W], the network in the coordinates of `priors.edm.EDM`."""
    x = (2 * image - 1) / np.sqrt(LEVEL**2 + 0.25)
    return net.apply(params, x, jnp.float32(np.log(LEVEL) / 4))[..., 0]


def cross_entropy(net, params, batch, key):
    del key
    images, masks = batch
    found = jax.vmap(functools.partial(logits, net, params))(images)
    return optax.sigmoid_binary_cross_entropy(found, masks).mean()


def maps(net, params, operator, noise_std, images):
    """Return the probabilities of all pixels of all images [N, H, W]."""
    keys = jax.random.split(jax.random.key(FLAGS.seed), len(images))

    def probabilities(params, operator, key, x):
        seen = reconstruction(operator, noise_std, key, x)
        return jax.nn.sigmoid(logits(net, params, seen))

    return np.stack(
        list(over_images(probabilities, (params, operator), keys, images.images))
    )


def evaluate(found, images):
    """Return {"all" or group: both AUROCs with intervals, and the power}.

    The power is the share of a group above the 95 % quantile of the images without an
    anomaly.
    """
    groups, scores = np.array(images.groups), image_scores(found)
    alarm = np.quantile(scores[groups == "id"], 0.95)
    numbers = {"all": aurocs(found, images)}
    for group in dict.fromkeys(images.groups):
        if group != "id":
            some = np.flatnonzero((groups == group) | (groups == "id"))
            numbers[group] = aurocs(found[some], images.take(some))
            power = float(np.mean(scores[groups == group] > alarm))
            numbers[group]["power at 5 %"] = power
    return numbers


if __name__ == "__main__":
    app.run(main)
