"""Train a prior from a config and export it: weights, error table, samples, record."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax import hub, training
from klip_jax.checkpoint import check_finite, check_fit, load_weights, save_weights
from klip_jax.config import build
from klip_jax.data.augment import Augment, augmented
from klip_jax.data.base import ImageSet, Source, image_source
from klip_jax.error_table import denoising_errors
from klip_jax.files import write_atomically
from klip_jax.priors.base import NetworkPrior
from klip_jax.recipe import Cast, Recipe
from klip_jax.run import steps
from klip_jax.run.card import card, sample_grid
from klip_jax.run.claim import claim
from klip_jax.run.lease import alone
from klip_jax.run.provenance import git_commit, versions
from klip_jax.run.settings import check
from klip_jax.signatures import check_fields, fill

FIELDS = "data", "augment", "net", "prior", "test", "licence", "init", "recipe"
"""The part `train` of a config."""
ERROR_LEVELS = tuple(float(s) for s in np.geomspace(0.005, 10.0, 16))
"""Noise levels of the error table, image units."""


class TrainJob(NamedTuple):
    """Everything a training needs, built and checked.

    Attributes:
      folder: the workdir.
      part: the part `train` of the resolved config.
      recipe, source: what is run.
      params: to start from.
      net_shape: (H, W, C) of what the network sees.
      make_prior: (params, dtype of the arithmetic) -> the prior.
      test_images: held out [N, H, W, C].
      before: the trainings that made the weights to start from, oldest first.
    """

    folder: Path
    part: dict
    recipe: Recipe
    source: Source
    params: Any
    net_shape: tuple[int, ...]
    make_prior: Callable[..., NetworkPrior]
    test_images: np.ndarray
    before: list[dict]

    def loss(self, params: Any, images: Any, key: jax.Array) -> jax.Array:
        """Return the prior's own loss of a batch."""
        prior = self.make_prior(params, self.recipe.dtype)
        law = dict(log_mean=self.recipe.log_mean, log_std=self.recipe.log_std)
        return prior.loss(images, key, **law)


def prepare(settings: Mapping[str, Any], folder) -> TrainJob:
    """Build and check a training, one step of which is traced; then claim the workdir.

    Args:
      settings: the resolved config; its part `train` says what to train on what.
      folder: the workdir; made if it is absent, and only if the training can begin.

    Raises:
      ValueError, OSError: one sentence on what is wrong and what to do.
    """
    settings = check(settings)
    part = settings["train"]
    check_fields(part, FIELDS, "train")
    recipe = fill(Recipe, part["recipe"], "train.recipe")
    recipe.check()
    augment = fill(Augment, part["augment"], "train.augment")
    images, test = build("data", part["data"]), build("data", part["test"])
    source = augmented(as_source(images), augment)
    shape = jax.eval_shape(source.draw, source.arrays, jax.random.key(0)).shape
    if test.shape != shape:
        raise ValueError(
            f"train.test: the images are {test.shape}, but those to train on are "
            f"{shape}"
        )
    net = build("nets", part["net"])
    net_shape = seen_by_network(part["prior"], shape)
    expected = hub.empty_params(net, net_shape)
    contents = {"held-out images": test.digest()}
    if isinstance(images, ImageSet):
        contents["training images"] = images.digest()
    params, before = expected, []
    if part["init"]:
        init = hub.find(part["init"])
        params, record = load_weights(init)
        check_fit(init, params, expected)
        check_finite(init, params)
        if "training" in record:
            last = dict(record["training"])
            before = [*last.pop("before", []), last]
        digest = hashlib.sha256(init.read_bytes()).hexdigest()
        contents["prior to start from"] = digest
    job = TrainJob(
        Path(folder),
        part,
        recipe,
        source,
        params,
        net_shape,
        functools.partial(_make_prior, part["prior"], net),
        test.images,
        before,
    )
    try:
        training.check_step(params, source, job.loss, recipe)
    except (NotImplementedError, AttributeError, TypeError) as error:
        name = part["prior"]["name"]
        raise ValueError(f"train.prior: {name} cannot be trained: {error}") from None
    claim(folder, settings, contents)
    if part["init"]:
        return job
    key = jax.random.key(recipe.seed)
    zeros = jnp.zeros(net_shape), jnp.float32(0)
    return job._replace(params=jax.jit(net.init)(key, *zeros))


def train_prior(job: TrainJob, *, progress: bool = True) -> Path:
    """Train to the end of the recipe and export; resumes where a killed run stopped.

    In the workdir `checkpoints/` and `train.csv` grow, then `weights.safetensors`, its
    card `weights.md` and `samples.png` appear.

    Args:
      job: see `prepare`.
      progress: show a bar with loss and images a second.

    Returns:
      The path of the weights.

    Raises:
      FloatingPointError: if the loss stops being finite.
      ValueError: if another process trains in this workdir.
    """
    with alone(job.folder, "train"):
        state = steps.train(
            job.folder,
            job.params,
            job.source,
            job.loss,
            job.recipe,
            progress=progress,
        )
        return export(job, state)


def export(job: TrainJob, state: training.TrainState) -> Path:
    """Write weights.safetensors, their card weights.md and samples.png of a state.

    The record holds the network, the prior, the recipe, the device, the expected error
    per level on training and on held-out images, and the same of the trainings before.
    """
    part, source = job.part, job.source
    prior = job.make_prior(state.ema)
    keys = jax.random.split(jax.random.key(1), len(job.test_images))
    draw = jax.jit(jax.vmap(source.draw, (None, 0)))
    errors = {
        name: denoising_errors(prior, images, np.array(ERROR_LEVELS)).tolist()
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
            "versions": versions(),
            "git": git_commit(),
            "before": job.before,
        },
    }
    if job.net_shape != job.test_images.shape[1:]:
        record["net_shape"] = list(job.net_shape)
    path = job.folder / "weights.safetensors"
    # A card says which weights it is of: the old one must not meet the new weights.
    path.with_suffix(".md").unlink(missing_ok=True)
    save_weights(path, state.ema, record)
    text = card(record, hub.sha256(path))
    write_atomically(path.with_suffix(".md"), text.encode())
    trained, _ = hub.load(path)
    grid = sample_grid(trained, job.test_images.shape[1:])
    write_atomically(job.folder / "samples.png", grid)
    return path


def as_source(data: ImageSet | Source) -> Source:
    """Return `data` if it is a `Source`, else one that draws from its images."""
    return data if isinstance(data, Source) else image_source(data.images)


def seen_by_network(
    prior: Mapping[str, Any], image_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the shape (H, W, C) of what the network of a prior is called with.

    Args:
      prior: settings; a prior of patches has a network of smaller images.
      image_shape: (H, W, C).
    """

    told = build("priors", prior, {}, _Tells())
    x = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
    try:
        jax.eval_shape(told, x, jax.ShapeDtypeStruct((), jnp.float32))
    except _Seen as seen:
        return seen.args[0]
    return tuple(image_shape)


class _Seen(Exception):
    """What `_Tells` was called with."""


class _Tells:
    """A network that only tells what it is called with."""

    def apply(self, params, x, noise_level):
        raise _Seen(x.shape)


def _make_prior(config, net, params, dtype="float32"):
    if dtype != "float32":
        net = Cast(net, dtype)
    return build("priors", config, params, net)
