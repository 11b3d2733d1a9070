"""Train a prior or a classifier from a config and export it: weights, record, card."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from klip_jax import hub, training
from klip_jax.checkpoint import (
    check_finite,
    check_fit,
    load_weights,
    save_weights,
    training_checkpoints,
)
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
_CHECKPOINT_SECONDS = 60.0


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


def prepare(settings: Mapping[str, Any], folder, *, command: str = "") -> TrainJob:
    """Build and check a training, one step of which is traced; then claim the workdir.

    Args:
      settings: the resolved config; its part `train` says what to train on what.
      folder: the workdir; made if it is absent, and only if the training can begin.
      command: the command line that asks for it, to be told in config.json.

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
    claim(folder, settings, contents, {"command": command})
    if part["init"]:
        return job
    return job._replace(params=trained.init(jax.random.key(recipe.seed)))


def train_weights(job: TrainJob, *, progress: bool = True) -> Path:
    """Train to the end of the recipe and export; resumes where it was stopped.

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
      KeyboardInterrupt: after Ctrl-C, when the weights as they were are exported.
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
        path = export(job, state, progress=progress)
    if int(state.step) < job.recipe.steps:
        raise KeyboardInterrupt(
            f"stopped at step {int(state.step)}; its weights are {path}, and the same "
            "command goes on where it was"
        )
    return path


def export_newest(job: TrainJob, *, progress: bool = True) -> Path:
    """Export the weights of the newest checkpoint, also while another trains.

    Raises:
      ValueError: if there is no checkpoint.
    """
    if not steps.done(job.folder):
        raise ValueError(f"{job.folder}: no checkpoint to export yet")
    manager = training_checkpoints(job.folder / "checkpoints", keep=0)
    state = steps.newest(manager, job.params, job.recipe)
    manager.close()
    return export(job, state, progress=progress)


def lasting(job: TrainJob, minutes: float, each: float) -> TrainJob:
    """Return the training with as many steps more as fit into some minutes.

    The learning rate falls to zero at their end. Compiling and exporting come on top.

    Args:
      job: see `prepare`.
      minutes: from now on.
      each: seconds of a step.
    """
    count = steps.done(job.folder) + max(1, round(60 * minutes / each))
    recipe = job.recipe._replace(
        steps=count,
        warmup=min(job.recipe.warmup, max(1, count // 10)),
        checkpoint_every=max(1, min(round(_CHECKPOINT_SECONDS / each), count)),
    )
    part = {**job.part, "recipe": {**job.part["recipe"], **recipe._asdict()}}
    return job._replace(recipe=recipe, part=part)


def seconds_per_step(job: TrainJob) -> float:
    """Time a training step of a job."""
    return steps.seconds_per_step(job.params, job.source, job.loss, job.recipe)


def export(
    job: TrainJob, state: training.TrainState, *, progress: bool = False
) -> Path:
    """Write weights.safetensors, their card weights.md and pictures of a state.

    The record holds the network, the recipe, the device, the trainings before, and of a
    prior its expected error per level, of a classifier how often it is right.

    Args:
      job: see `prepare`.
      state: what is exported.
      progress: print what is being done: it takes a minute or two.
    """
    part, test = job.part, job.test
    say = functools.partial(print, flush=True) if progress else lambda words: None
    say("  weights 1/3     draws of the training images")
    examined = job.trained.examined(job.source, job.plain)
    keys = jax.random.split(jax.random.key(1), len(test))
    drawn = jax.jit(jax.vmap(examined.draw, (None, 0)))(examined.arrays, keys)
    examples = {"train": jax.tree.map(np.asarray, drawn), "test": test.images}
    if job.trained.classes:
        examples["test"] = test.images, np.asarray(test.labels)
    say("  weights 2/3     their errors on training and held-out images")
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
    say("  weights 3/3     samples of the prior") if part["prior"] else None
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
