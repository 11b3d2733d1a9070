"""Which reference laws a run has already: those that ship with weights and fit it."""

import jax
import numpy as np

from klip_jax import hub, reference_law, rooms
from klip_jax.run.provenance import described, file_digests, tree_digest
from klip_jax.spelling import plain, short


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


def law_fingerprints(settings, record, scene, detectors) -> dict[str, str]:
    """Return the fingerprint of the law of each detector in this run."""
    shared = {
        "scan": settings["scan"],
        "posterior": described(scene.posterior),
        "seed": settings["seed"],
        "draw_steps": settings["calibration"]["steps"],
        "record": {k: record[k] for k in ("net", "prior")},
        "operator": operator_digest(settings, scene),
    }
    prints = {}
    for name, detector in detectors.items():
        description = {**shared, "detector": described(detector)}
        if "classifier" in detector.needs:
            description["classifier"] = described(scene.classifier)
        prints[name] = reference_law.fingerprint(scene.prior, plain(description))
    return prints


def shipped_laws(settings, detectors, fingerprints):
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
    laws = {
        name: known[fingerprints[name]]
        for name, detector in detectors.items()
        # A fit needs what was looked at, not only what it scored.
        if fingerprints[name] in known and not detector.fits
    }
    return laws, tree_digest(laws)


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
