"""Train a prior from a config and export it: weights, error table, samples, record."""

import functools
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from klip_jax import train, workdir
from klip_jax.build import (
    build,
    check_fields,
    empty_params,
    fill,
    load_prior,
)
from klip_jax.calibration import prior_draw
from klip_jax.checkpoint import check_fit, load_weights, save_weights, write_atomically
from klip_jax.data.augment import Augment, augmented
from klip_jax.data.base import Source, image_source
from klip_jax.default_config import get_config
from klip_jax.priors.base import NetworkPrior

ERROR_LEVELS = tuple(float(s) for s in np.geomspace(0.005, 10.0, 16))
"""Noise levels of the error table, image units."""


class TrainJob(NamedTuple):
    """Everything a training needs, built and checked.

    Attributes:
      folder: the workdir.
      part: the part `train` of the resolved config.
      recipe, source: what is run.
      params: to start from.
      make_prior: (params, dtype of the arithmetic) -> the prior.
      test_images: held out [N, H, W, C].
      before: the trainings that made the weights to start from, oldest first.
    """

    folder: Path
    part: dict
    recipe: train.Recipe
    source: Source
    params: Any
    make_prior: Callable[..., NetworkPrior]
    test_images: np.ndarray
    before: list[dict]


def prepare(settings: dict, folder) -> TrainJob:
    """Build and check a training.

    Args:
      settings: the resolved config; its part `train` says what to train on what.
      folder: the workdir; made if it is absent.

    Raises:
      ValueError, OSError: one sentence on what is wrong and what to do.
    """
    known = get_config()
    check_fields(settings, known, "config")
    part = settings["train"]
    check_fields(part, known["train"], "train")
    recipe = fill(train.Recipe, part["recipe"], "train.recipe")
    recipe.check()
    augment = fill(Augment, part["augment"], "train.augment")
    source = augmented(as_source(build("data", part["data"])), augment)
    shape = jax.eval_shape(source.draw, source.arrays, jax.random.key(0)).shape
    net = build("nets", part["net"])
    expected = empty_params(net, shape)
    make_prior = functools.partial(_make_prior, part["prior"], net)
    make_prior(expected)  # its settings are checked
    before, contents = [], {}
    if part["init"]:
        params, record = load_weights(part["init"])
        if "training" in record:
            last = dict(record["training"])
            before = [*last.pop("before", []), last]
        check_fit(part["init"], params, expected)
        init = Path(part["init"]).read_bytes()
        contents = {"prior to start from": hashlib.sha256(init).hexdigest()}
    else:
        key = jax.random.key(recipe.seed)
        params = jax.jit(net.init)(key, jnp.zeros(shape), jnp.float32(0))
    test = build("data", part["test"]).images
    if test.shape[1:] != shape:
        raise ValueError(
            f"train.test: the images are {test.shape[1:]}, but those to train on are "
            f"{shape}"
        )
    workdir.claim(folder, settings, contents)
    return TrainJob(
        Path(folder), part, recipe, source, params, make_prior, test, before
    )


def train_prior(job: TrainJob, *, progress: bool = True) -> Path:
    """Train to the end of the recipe and export; resumes where a killed run stopped.

    In the workdir `checkpoints/` and `train.csv` grow, then `weights.safetensors` and
    `samples.png` appear.

    Args:
      job: see `prepare`.
      progress: show a bar with loss and images a second.

    Returns:
      The path of the weights.

    Raises:
      FloatingPointError: if the loss stops being finite.
    """
    recipe = job.recipe

    def loss(params, images, key):
        return train.denoising_loss(
            job.make_prior(params, recipe.dtype),
            images,
            key,
            log_mean=recipe.log_mean,
            log_std=recipe.log_std,
        )

    state = train.train(
        job.folder, job.params, job.source, loss, recipe, progress=progress
    )
    return export(job, state)


def export(job: TrainJob, state: train.TrainState) -> Path:
    """Write weights.safetensors, their card.md and samples.png of a training state.

    The record holds the network, the prior, the recipe, the device, the expected error
    per level on training and on held-out images, and the same of the trainings before.
    """
    part, source = job.part, job.source
    prior = job.make_prior(state.ema)
    keys = jax.random.split(jax.random.key(1), len(job.test_images))
    draw = jax.jit(jax.vmap(source.draw, (None, 0)))
    errors = {
        name: train.denoising_errors(prior, images, np.array(ERROR_LEVELS)).tolist()
        for name, images in (
            ("train", np.asarray(draw(source.arrays, keys))),
            ("test", job.test_images),
        )
    }
    record = {
        "net": part["net"],
        "prior": part["prior"],
        "image_shape": list(job.test_images.shape[1:]),
        # The estimators use the error on training images: test images stay unseen.
        "errors": {"levels": list(ERROR_LEVELS), "errors": errors["train"], **errors},
        "training": {
            "data": part["data"],
            "licence": part["licence"],
            "augment": part["augment"],
            "init": part["init"],
            "recipe": part["recipe"],
            "step": int(state.step),
            "images": int(state.step) * part["recipe"]["batch"],
            "versions": workdir.versions(),
            "git": workdir.git_commit(),
            "before": job.before,
        },
    }
    path = job.folder / "weights.safetensors"
    save_weights(path, state.ema, record)
    write_atomically(job.folder / "card.md", card(record).encode())
    prior, _ = load_prior(path)
    grid = sample_grid(prior, job.test_images.shape[1:])
    write_atomically(job.folder / "samples.png", grid)
    return path


def card(record: dict) -> str:
    """Return what a weights file's record says, as markdown for people."""
    training, errors = record["training"], record["errors"]
    stages = [*training["before"], training]
    steps = ", then ".join(f"{s['step']} ({s['images']} images)" for s in stages)
    versions = training["versions"]
    rows = zip(errors["levels"], errors["train"], errors["test"], strict=True)
    table = "\n".join(
        f"| {sigma:.4g} | {train**0.5 / sigma:.3f} | {test**0.5 / sigma:.3f} |"
        for sigma, train, test in rows
    )
    return f"""# Weights for {record["image_shape"]} images

| | |
|---|---|
| data | {training["data"]} |
| augmentation | {training.get("augment", "none")} |
| licence | {training["licence"]} |
| network | {record["net"]} |
| prior | {record["prior"]} |
| optimiser steps | {steps} |
| last recipe | {training["recipe"]} |
| started from | {stages[0]["init"] or "random weights"} |
| device | {versions["device"]}, jax {versions["jax"]} |

Root mean squared denoising error per pixel over sigma, image units:

| sigma | training images | held-out images |
|---|---|---|
{table}
"""


def sample_grid(prior: NetworkPrior, shape, *, side: int = 6) -> bytes:
    """Draw side^2 images from the prior; returns a PNG."""

    @jax.jit
    def draw(prior, keys):
        return jax.vmap(lambda key: prior_draw(key, prior, shape))(keys)

    rows = [
        np.asarray(draw(prior, jax.random.split(jax.random.key(row), side)))
        for row in range(side)
    ]
    tiled = np.concatenate([np.concatenate(list(row), 1) for row in rows])
    grey = np.uint8(np.clip(tiled, 0, 1) * 255).squeeze()
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def as_source(data) -> Source:
    """Return `data` if it is a `Source`, else one that draws from its images."""
    return data if isinstance(data, Source) else image_source(data.images)


def _make_prior(config, net, params, dtype="float32"):
    if dtype != "float32":
        net = train.Cast(net, dtype)
    return build("priors", config, params, net)
