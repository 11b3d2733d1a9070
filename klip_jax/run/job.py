"""A job: everything that a run needs, built and checked before anything is computed."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from klip_jax import config, hub, reference_law, rooms, signatures
from klip_jax.data.base import ImageSet
from klip_jax.posterior import PosteriorSampler
from klip_jax.run import inputs as inputs_of
from klip_jax.run import settings as tree
from klip_jax.run.claim import claim
from klip_jax.run.inputs import Inputs
from klip_jax.run.look import Scene, Viewer
from klip_jax.run.provenance import described, file_digests, tree_digest
from klip_jax.run.rehearse import Rehearsal, build_detector, rehearse, what_is_there
from klip_jax.spelling import plain, short
from klip_jax.types import Detector


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """Everything a run needs, built and checked.

    Attributes:
      folder: the workdir.
      settings: of `settings.check`.
      record: what the weights say of themselves.
      scene: prior, scanner and posterior, that all images share.
      detectors: by name, in their order; not fitted yet.
      inputs: what is looked at.
      healthy: images for fits and conformal p-values; None if none are named.
      shape: (H, W, C) of the images.
      laws: scores [M] of draws of the model that are known already, by detector.
      fingerprints: of each detector's law; see `reference_law.fingerprint`.
      rehearsed: what each detector will look at and tell.
      digests: {what: digest} of what the settings name.
    """

    folder: Path
    settings: dict[str, Any]
    record: Mapping[str, Any]
    scene: Scene
    detectors: dict[str, Detector]
    inputs: Inputs
    healthy: Inputs | None
    shape: tuple[int, ...]
    laws: dict[str, np.ndarray]
    fingerprints: dict[str, str]
    rehearsed: dict[str, Rehearsal]
    digests: dict[str, str]

    @property
    def draws(self) -> int:
        """How many draws of the model are asked for."""
        return self.settings["calibration"]["draws"]

    @property
    def drawn(self) -> dict[str, Detector]:
        """The detectors that need draws of the model: none ships with their law."""
        found = {n: d for n, d in self.detectors.items() if n not in self.laws}
        return found if self.draws else {}

    def viewer(self) -> Viewer:
        """Return what looks at images, to be kept as long as there are any."""
        steps = self.settings["calibration"]["steps"]
        return Viewer(self.scene, shape=self.shape, steps=steps)


def prepare(settings: Mapping[str, Any], folder) -> Job:
    """Build, check and claim a job.

    Args:
      settings: the resolved config as nested dicts.
      folder: the workdir; made if it is absent.

    Raises:
      ValueError, OSError: one sentence on what is wrong and what to do; nothing was
        computed or written.
    """
    settings = tree.check(settings)
    sets = _image_sets(settings)  # data are asked for before weights: they are named
    prior, record = hub.load(settings["prior"]["weights"])
    shape = tuple(record["image_shape"])
    scene = _scene(settings, prior, shape)
    inputs, healthy, digests = _inputs(settings, sets, scene, shape)
    detectors = {
        name: build_detector(name, chosen)
        for name, chosen in settings["detectors"].items()
    }
    there = what_is_there(scene, inputs)
    rehearsed = {
        name: rehearse(
            name, settings["detectors"][name]["name"], scene, d, shape, there
        )
        for name, d in detectors.items()
    }
    fingerprints = _fingerprints(settings, record, scene, detectors)
    laws, law_digest = _shipped(settings, detectors, fingerprints)
    _check_fits(settings, detectors)
    digests |= {
        "prior": tree_digest(prior),
        "classifier": tree_digest(scene.classifier),
        "operator": _operator_digest(settings, scene),
        "reference law": law_digest,
    }
    job = Job(
        Path(folder),
        settings,
        record,
        scene,
        detectors,
        inputs,
        healthy,
        shape,
        laws,
        fingerprints,
        rehearsed,
        digests,
    )
    calls = 0 if scene.posterior is None else scene.posterior.network_calls
    claim(
        folder,
        settings,
        digests,
        {
            "main": settings["main"],
            "total": len(inputs),
            "image_shape": list(shape),
            "posterior_calls": calls,
            "detectors": {name: found.about for name, found in rehearsed.items()},
        },
    )
    return job


def _scene(settings, prior, shape) -> Scene:
    classifier, weights = None, settings["classifier"]["weights"]
    if weights:
        classifier, _ = hub.load_classifier(weights)
        if classifier.image_shape != shape:
            raise ValueError(
                f"classifier.weights: {weights} names images of "
                f"{classifier.image_shape}, but the prior is for {shape}"
            )
    scan = settings["scan"]
    if scan is None:
        return Scene(prior, classifier)
    operator = config.build("operators", scan["operator"], shape)
    if tuple(operator.in_shape) != shape:
        raise ValueError(
            f"scan.operator: {scan['operator']['name']} measures images of "
            f"{tuple(operator.in_shape)}, but the prior is for {shape}"
        )
    parts = {
        key: config.build(config.ROOMS[key], value) if key in config.ROOMS else value
        for key, value in settings["posterior"].items()
    }
    posterior = signatures.construct(PosteriorSampler, "posterior", parts)
    return Scene(prior, classifier, operator, float(scan["noise_std"]), posterior)


def _image_sets(settings) -> dict[str, ImageSet]:
    """Build the images to look at, unless they were measured, and the healthy ones."""
    found = {}
    if not settings["data"].get("measurements"):
        found["data"] = _image_set("data", settings["data"])
    healthy = settings["calibration"]["healthy"]
    if healthy is not None:
        found["calibration.healthy"] = _image_set("calibration.healthy", healthy)
    return found


def _image_set(where, data) -> ImageSet:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}={short(data)}: give dict(name=..., ...)")
    chosen = {k: v for k, v in data.items() if k != "measurements"}
    images = config.build("data", chosen)
    if not isinstance(images, ImageSet):
        raise ValueError(
            f"{where}: {data['name']} gives {type(images).__name__}, not an ImageSet"
        )
    inputs_of.check_ids(images.ids, where)
    return images


def _inputs(settings, sets, scene, shape) -> tuple[Inputs, Inputs | None, dict]:
    """Return what is looked at, the healthy images, and the digests of both.

    Every image is read here once, so that a broken one is known before all others were
    computed.
    """
    seed, digests = settings["seed"], {}
    for where, images in sets.items():
        if tuple(images.shape) != shape:
            raise ValueError(
                f"{where}: the images are {tuple(images.shape)}, the prior is for "
                f"{shape}; give fitting data or --config.prior.weights"
            )
        sets[where] = inputs_of.checked(images, where)
        digests[where] = sets[where].digest()
    inputs = healthy = None
    if (images := sets.get("calibration.healthy")) is not None:
        if digests["calibration.healthy"] == digests.get("data"):
            raise ValueError(
                "calibration.healthy: these are the images that are tested; name others"
            )
        if len(images) < 4:
            raise ValueError(f"calibration.healthy: {len(images)} images; at least 4")
        healthy = inputs_of.of_images(images, seed)
    if "data" in sets:
        inputs = inputs_of.of_images(sets["data"], seed)
    elif scene.operator is None:
        raise ValueError("data.measurements: no scan.operator says what measured")
    else:
        y, ids = inputs_of.load_measurements(settings["data"], scene.operator)
        digests["measurements"] = tree_digest((y, np.array(ids)))
        inputs = inputs_of.of_measurements(y, ids, seed)
    words = {"data": "images", "calibration.healthy": "healthy images"}
    return inputs, healthy, {words.get(k, k): v for k, v in digests.items()}


def _operator_digest(settings, scene) -> str:
    """Return the digest of what an operator sees, and of the files that it names.

    Numbers of an operator may differ in the last digit between machines; which pixels
    or lines it sees may not.
    """
    if scene.operator is None:
        return ""
    chosen = settings["scan"]["operator"]
    files = file_digests(rooms.resolve("operators", chosen["name"]), chosen)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(scene.operator)]
    whole = tree_digest([a for a in leaves if a.dtype.kind in "biu"])
    return " ".join([whole, *files.values()])


def _fingerprints(settings, record, scene, detectors) -> dict[str, str]:
    shared = {
        "scan": settings["scan"],
        "posterior": described(scene.posterior),
        "seed": settings["seed"],
        "draw_steps": settings["calibration"]["steps"],
        "record": {k: record[k] for k in ("net", "prior")},
        "operator": _operator_digest(settings, scene),
    }
    found = {}
    for name, detector in detectors.items():
        description = {**shared, "detector": described(detector)}
        if "classifier" in detector.needs:
            description["classifier"] = described(scene.classifier)
        found[name] = reference_law.fingerprint(scene.prior, plain(description))
    return found


def _shipped(settings, detectors, fingerprints):
    """Return ({detector: scores of a law that fits}, the digest of these)."""
    name = settings["calibration"]["law"]
    paths = hub.law_paths(name or settings["prior"]["weights"])
    if name and not paths:
        raise FileNotFoundError(
            f"calibration.law={short(name)}: no such law; leave it empty to "
            "compute the law, which the workdir then keeps"
        )
    known = {}
    for law in map(reference_law.load_law, paths):
        known |= {law.fingerprints[n]: scores for n, scores in law.scores.items()}
    found = {
        name: known[fingerprints[name]]
        for name, detector in detectors.items()
        # A fit needs what was looked at, not only what it scored.
        if fingerprints[name] in known and not detector.fits
    }
    return found, tree_digest(found)


def _check_fits(settings, detectors) -> None:
    draws, healthy = (
        settings["calibration"]["draws"],
        settings["calibration"]["healthy"],
    )
    for name, detector in detectors.items():
        if detector.fits and healthy is None and draws < 8:
            raise ValueError(
                f"detectors.{name}: {settings['detectors'][name]['name']} must be "
                f"fitted, and calibration.draws={draws}: give at least 8, or "
                "calibration.healthy, or leave this detector out"
            )
