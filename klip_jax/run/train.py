"""Train a prior or a classifier from a config and export it: weights, record, card."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from klip_jax import hub, training
from klip_jax.checkpoint import check_finite, check_fit, load_weights, save_weights
from klip_jax.config import build
from klip_jax.data.augment import Augment, augmented
from klip_jax.data.base import ImageSet, Source
from klip_jax.files import write_atomically
from klip_jax.recipe import Recipe
from klip_jax.records import is_classifier
from klip_jax.run import steps
from klip_jax.run.claim import claim
from klip_jax.run.lease import alone
from klip_jax.run.provenance import git_commit, versions
from klip_jax.run.settings import check
from klip_jax.run.trained_classifier import TrainedClassifier
from klip_jax.run.trained_prior import TrainedPrior
from klip_jax.run.training_images import as_source, checked_labels
from klip_jax.signatures import check_fields, fill
from klip_jax.spelling import short

FIELDS = "data", "augment", "net", "prior", "test", "licence", "init", "recipe"
"""The part `train` of a config; a classifier is what has no prior, `prior=None`."""


class TrainJob(NamedTuple):
    """Everything a training needs, built and checked.

    Attributes:
      folder: the workdir.
      part: the part `train` of the resolved config.
      recipe: see `Recipe`.
      trained: what is trained.
      source, plain: of examples, and of the same ones as they are, not augmented.
      params: to start from.
      test: held-out images.
      before: the trainings that made the weights to start from, oldest first.
    """

    folder: Path
    part: dict
    recipe: Recipe
    trained: TrainedPrior | TrainedClassifier
    source: Source
    plain: Source
    params: Any
    test: ImageSet
    before: list[dict]

    def loss(self, params: Any, examples: Any, key: jax.Array) -> Any:
        """Return the loss of a batch; see `training.Loss`."""
        return self.trained.loss(params, examples, key, recipe=self.recipe)


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
    classes = trained_by(part, ()).classes
    images, test = build("data", part["data"]), build("data", part["test"])
    plain = as_source(images, classes)
    source = augmented(plain, augment)
    drawn = jax.eval_shape(source.draw, source.arrays, jax.random.key(0))
    shape = (drawn[0] if classes else drawn).shape
    if test.shape != shape:
        raise ValueError(
            f"train.test: the images are {test.shape}, but those to train on are "
            f"{shape}"
        )
    if classes:
        checked_labels(test, classes, "train.test")
    trained = trained_by(part, shape)
    expected = trained.shapes()
    contents = {"held-out images": test.digest()}
    if isinstance(images, ImageSet):
        contents["training images"] = images.digest()
    params, before = expected, []
    if part["init"]:
        init = hub.find(part["init"], "train.init")
        params, record = load_weights(init)
        check_fit(init, params, expected)
        check_finite(init, params)
        if "training" in record:
            last = dict(record["training"])
            before = [*last.pop("before", []), last]
        digest = hashlib.sha256(init.read_bytes()).hexdigest()
        contents["prior to start from"] = digest
    job = TrainJob(
        Path(folder), part, recipe, trained, source, plain, params, test, before
    )
    _check_step(job)
    claim(folder, settings, contents)
    if part["init"]:
        return job
    return job._replace(params=trained.init(jax.random.key(recipe.seed)))


def train_weights(job: TrainJob, *, progress: bool = True) -> Path:
    """Train to the end of the recipe and export; resumes where a killed run stopped.

    In the workdir `checkpoints/` and `train.csv` grow, then `weights.safetensors`, its
    card `weights.md` and, of a prior, `samples.png` appear.

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
    """Write weights.safetensors, their card weights.md and pictures of a state.

    The record holds the network, the recipe, the device, the trainings before, and of a
    prior its expected error per level, of a classifier how often it is right.
    """
    part, test = job.part, job.test
    examined = job.trained.examined(job.source, job.plain)
    keys = jax.random.split(jax.random.key(1), len(test))
    drawn = jax.jit(jax.vmap(examined.draw, (None, 0)))(examined.arrays, keys)
    examples = {"train": jax.tree.map(np.asarray, drawn), "test": test.images}
    if job.trained.classes:
        examples["test"] = test.images, np.asarray(test.labels)
    record = {
        "net": part["net"],
        "image_shape": list(test.shape),
        **job.trained.record(state.ema, examples),
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
    path = job.folder / "weights.safetensors"
    # A card says which weights it is of: the old one must not meet the new weights.
    path.with_suffix(".md").unlink(missing_ok=True)
    save_weights(path, state.ema, record)
    text = job.trained.card(record, hub.sha256(path))
    write_atomically(path.with_suffix(".md"), text.encode())
    for name, picture in job.trained.pictures(path).items():
        write_atomically(job.folder / name, picture)
    return path


def trained_by(
    part: Mapping[str, Any], image_shape: tuple[int, ...]
) -> TrainedPrior | TrainedClassifier:
    """Return what the part `train` of a config trains, of images [H, W, C].

    Raises:
      ValueError: if its network is of a classifier but its prior is one, or the other
        way round.
    """
    net, prior = part["net"], part["prior"]
    classifier = is_classifier({"net": net})
    name = short(net.get("name") if isinstance(net, Mapping) else net)
    if prior is None and not classifier:
        raise ValueError(
            f"train.prior=None, as for a classifier, but {name} is none; give "
            "dict(name='edm.EDM', ...), or a network of the room classifiers"
        )
    if prior is None:
        module = build("classifiers", net)
        if not getattr(module, "classes", 0):
            raise ValueError(f"train.net: {name} does not say how many `classes`")
        return TrainedClassifier(module, image_shape)
    if classifier and ":" not in name:  # your own may be either
        raise ValueError(
            f"train.net: {name} is a classifier, which has no prior; set "
            "train.prior=None"
        )
    return TrainedPrior(prior, build("nets", net), image_shape)


def _check_step(job):
    """Trace one step; what cannot be trained says so."""
    try:
        training.check_step(job.params, job.source, job.loss, job.recipe)
    except (NotImplementedError, AttributeError, TypeError) as error:
        field = "net" if job.part["prior"] is None else "prior"
        name = job.part[field]["name"]
        raise ValueError(f"train.{field}: {name} cannot be trained: {error}") from None
