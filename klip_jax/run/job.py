"""A job: everything that a run needs, built and checked before anything is computed."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from klip_jax import config, hub, signatures
from klip_jax.posterior import PosteriorSampler
from klip_jax.run import settings as tree
from klip_jax.run.claim import claim
from klip_jax.run.inputs import Inputs
from klip_jax.run.look import Scene, Viewer
from klip_jax.run.named_images import image_sets, read_inputs
from klip_jax.run.provenance import tree_digest
from klip_jax.run.rehearse import (
    Rehearsal,
    Shapes,
    build_detector,
    rehearse,
    what_is_there,
)
from klip_jax.run.shipped import (
    Prints,
    Shipped,
    check_fits,
    law_fingerprints,
    operator_digest,
    shipped_laws,
)
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
      shapes: (H, W, C) of the images, and of what the prior denoises.
      laws: what is known already; see `shipped.Shipped`.
      fingerprints: of each detector's laws; see `reference_law.fingerprint`.
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
    shapes: Shapes
    laws: Shipped
    fingerprints: Prints
    rehearsed: dict[str, Rehearsal]
    digests: dict[str, str]

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of what the prior denoises, so of a draw of the model too."""
        return self.shapes.prior

    @property
    def draws(self) -> int:
        """How many draws of the model are asked for."""
        return self.settings["calibration"]["draws"]

    @property
    def drawn(self) -> dict[str, Detector]:
        """The detectors that need draws of the model: no law of theirs ships.

        Controls alone are not worth hundreds of draws: they go without p-values.
        """
        if not self.draws:
            return {}
        known = {*self.laws.draws, *self.laws.healthy}
        without = {n: d for n, d in self.detectors.items() if n not in known}
        main = self.settings["main"]
        worth = any(n == main or not self._is_control(n) for n in without)
        return without if worth else {}

    def _is_control(self, name: str) -> bool:
        return self.rehearsed[name].about["control"]

    def law_sizes(self) -> dict[str, Any]:
        """Return how many scores the laws of each detector are of, and patients.

        A fit takes half of what it is made on.
        """
        shipped, healthy = self.laws, self.healthy
        draws = {n: len(law) for n, law in shipped.draws.items()}
        draws |= dict.fromkeys(self.drawn, self.draws)
        own = {n: len(law) for n, law in shipped.healthy.items()}
        if healthy is not None:
            own = dict.fromkeys(self.detectors, len(healthy))
        for name in (n for n, d in self.detectors.items() if d.fits):
            sizes = draws if healthy is None else own
            if name in sizes:
                sizes[name] -= sizes[name] // 2
        return {"draws": draws, "healthy": own, "patients": self.patients}

    @property
    def patients(self) -> int:
        """How many patients the healthy images are of; 0 if that is not known."""
        if self.healthy is None:
            return self.laws.patients
        return len(set(self.healthy.patients) - {""})

    def viewer(self) -> Viewer:
        """Return what looks at images, to be kept as long as there are any."""
        steps = self.settings["calibration"]["steps"]
        return Viewer(self.scene, shape=self.shape, steps=steps)


def prepare(settings: Mapping[str, Any], folder, *, command: str = "") -> Job:
    """Build, check and claim a job.

    Args:
      settings: the resolved config as nested dicts.
      folder: the workdir; made if it is absent.
      command: the command line that asks for it, to be told in config.json.

    Raises:
      ValueError, OSError: one sentence on what is wrong and what to do; nothing was
        computed or written.
    """
    settings = tree.check(settings)
    sets = image_sets(settings)  # data are asked for before weights: they are named
    prior, record = hub.load(settings["prior"]["weights"])
    shapes = _shapes(settings, sets, tuple(record["image_shape"]))
    scene = scene_of(settings, prior, shapes)
    inputs, healthy, digests = read_inputs(settings, sets, scene, shapes.picture)
    detectors = {
        name: build_detector(name, chosen)
        for name, chosen in settings["detectors"].items()
    }
    there = what_is_there(scene, inputs)
    check_fits(settings, detectors)
    images = settings["calibration"]["draws"] if healthy is None else len(healthy)
    rehearsed = {
        name: rehearse(
            name,
            settings["detectors"][name]["name"],
            scene,
            detector,
            shapes,
            there,
            fitted_on=images // 2,
        )
        for name, detector in detectors.items()
    }
    fingerprints = law_fingerprints(settings, record, scene, detectors)
    laws = shipped_laws(settings, detectors, fingerprints)
    digests |= {
        "prior": tree_digest(prior),
        "classifier": tree_digest(scene.classifier),
        "operator": operator_digest(settings, scene),
        "reference law": laws.digest(),
    }
    if source := record["net"].get("source"):  # of `own_prior`
        digests["source of the prior"] = source
    if parts := [a for a in jax.tree.leaves(detectors) if isinstance(a, jax.Array)]:
        digests["weights of detectors"] = tree_digest(parts)
    job = Job(
        Path(folder),
        settings,
        record,
        scene,
        detectors,
        inputs,
        healthy,
        shapes,
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
            "command": command,
            "main": settings["main"],
            "total": len(inputs),
            "image_shape": list(shapes.picture),
            "posterior_calls": calls,
            "detectors": {name: rehearsed[name].about for name in rehearsed},
            "laws": job.law_sizes(),
        },
    )
    return job


def _shapes(settings, sets, prior: tuple[int, ...]) -> Shapes:
    """Return what the run looks at: what was measured is the prior's own size."""
    if settings["scan"] is not None or "data" not in sets:
        return Shapes(prior, prior)
    shapes, draws = Shapes(tuple(sets["data"].shape), prior), settings["calibration"]
    if shapes.picture != prior and draws["draws"]:
        raise ValueError(
            f"data: the images are {shapes.picture}, but a draw of the model is of "
            f"{prior}; give data of that size, or --config.calibration.draws=0 (and "
            "calibration.healthy for p-values)"
        )
    return shapes


def scene_of(settings: Mapping[str, Any], prior: Any, shapes: Shapes) -> Scene:
    """Build what all images share: prior, classifier, scanner and posterior."""
    classifier, weights = None, settings["classifier"]["weights"]
    if weights:
        classifier, _ = hub.load_classifier(weights)
        if classifier.image_shape != shapes.picture:
            raise ValueError(
                f"classifier.weights: {weights} names images of "
                f"{classifier.image_shape}, but the pictures are {shapes.picture}"
            )
    scan, shape = settings["scan"], shapes.prior
    drawer = config.build("samplers", settings["calibration"]["sampler"])
    if scan is None:
        return Scene(prior, classifier, drawer=drawer)
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
    noise_std = float(scan["noise_std"])
    return Scene(prior, classifier, operator, noise_std, posterior, drawer)
