"""Which reference laws a run has already: those that ship with weights and fit it."""

from typing import Any, NamedTuple

import jax
import numpy as np

from klip_jax import hub, reference_law, rooms
from klip_jax.run.provenance import described, file_digests, tree_digest
from klip_jax.samplers.heun import Heun
from klip_jax.spelling import plain, short

NONE = "none"
"""What `calibration.law` says to leave laws that ship aside."""


def operator_digest(settings, scene) -> str:
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


class Prints(NamedTuple):
    """What the law of each detector must have been made with, by its name."""

    draws: dict[str, str]
    healthy: dict[str, str]


class Shipped(NamedTuple):
    """Scores of the laws that fit a run, by detector.

    Attributes:
      draws: of draws of the model [M].
      healthy: of healthy images [n].
      patients: how many these are of; 0 if that is not known.
    """

    draws: dict[str, np.ndarray]
    healthy: dict[str, np.ndarray]
    patients: int = 0

    def digest(self) -> str:
        """Return the digest of all scores."""
        return tree_digest((self.draws, self.healthy) if self.healthy else self.draws)


def law_fingerprints(settings, record, scene, detectors) -> Prints:
    """Return the fingerprints of the laws of each detector in this run.

    How draws are made is nothing to healthy images.
    """
    shared = {
        "scan": settings["scan"],
        "posterior": described(scene.posterior),
        "seed": settings["seed"],
        "record": {k: record[k] for k in ("net", "prior")},
        "operator": operator_digest(settings, scene),
    }
    drawn: dict[str, Any] = {"draw_steps": settings["calibration"]["steps"]}
    # Laws that name no sampler were drawn by this one.
    if (sampler := described(scene.drawer)) != described(Heun()):
        drawn["draw_sampler"] = sampler
    prints = Prints({}, {})
    for name, detector in detectors.items():
        own = {**shared, "detector": described(detector)}
        if "classifier" in detector.needs:
            own["classifier"] = described(scene.classifier)
        for made, more in ((prints.draws, drawn), (prints.healthy, {})):
            whole = plain(own | more)
            made[name] = reference_law.fingerprint(scene.prior, whole)
    return prints


def shipped_laws(settings, detectors, fingerprints: Prints) -> Shipped:
    """Return the laws that ship with the weights, as far as they fit.

    None if `calibration.law` is "none": then they are made anew.

    Raises:
      FileNotFoundError: if another one is named and is not there.
    """
    name = settings["calibration"]["law"]
    if name == NONE:
        return Shipped({}, {})
    paths = hub.law_paths(name or settings["prior"]["weights"])
    if name and not paths:
        raise FileNotFoundError(
            f"calibration.law={short(name)}: no such law; leave it empty to "
            "compute the law, which the workdir then keeps"
        )
    draws: dict[str, np.ndarray] = {}
    healthy: dict[str, np.ndarray] = {}
    patients: dict[str, int] = {}
    for law in map(reference_law.load_law, paths):
        draws |= {law.fingerprints[n]: scores for n, scores in law.scores.items()}
        for n, scores in law.healthy.items():
            healthy[law.healthy_fingerprints[n]] = scores
            patients[law.healthy_fingerprints[n]] = law.patients
    # A fit needs what was looked at, not only what it scored.
    able = [name for name, detector in detectors.items() if not detector.fits]
    own = {
        n: fingerprints.healthy[n] for n in able if fingerprints.healthy[n] in healthy
    }
    return Shipped(
        {
            n: draws[p]
            for n, p in fingerprints.draws.items()
            if n in able and p in draws
        },
        {n: healthy[p] for n, p in own.items()},
        max((patients[p] for p in own.values()), default=0),
    )


def check_fits(settings, detectors) -> None:
    """Raise a ValueError naming a detector that there is nothing to fit with."""
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
