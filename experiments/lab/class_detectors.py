"""The detectors of the benchmarks in which a classifier takes part.

Their settings, by their names in the tables. What guides, and which distance, is chosen
by tune_diffguard.py on training images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from klip_jax.detectors.diffnb import timestep_levels

OURS = "DiffGuard"
KLIP = "KLIP"
ORACLE = "DiffGuard, oracle labels"
AGAINST = "DiffGuard against the {}"
BY_CLASSIFIER = "DiffGuard, classifier guidance"
DIFFNB = "DiffNB"
MSMA = tuple(float(s) for s in np.geomspace(0.01, 1.0, 6))
PATH = tuple(float(s) for s in np.geomspace(0.01, 20.0, 6))
SCORES = {
    "MSP": dict(name="classifier_logits.MSP"),
    "max logit": dict(name="classifier_logits.MaxLogit"),
    "energy": dict(name="classifier_logits.Energy"),
    "GEN": dict(name="classifier_logits.GEN", gamma=0.1, largest=10),
}
FITTED_SCORES = {
    # Of the few images of a class that are fitted; the release has thousands of each.
    "KNN": dict(name="classifier_features.KNN", k=5),
    "ViM": dict(name="classifier_features.ViM"),
}
PRIORS = {
    "DDPM-OOD": dict(
        name="noised_reconstruction.DDPMOOD", levels=(0.1, 0.4, 0.8), steps=3
    ),
    "MSMA": dict(name="msma.MSMA", levels=MSMA),
    "DiffPath-6D": dict(
        name="diffpath.DiffPath6D", levels=PATH, components=(1, 2), folds=4
    ),
}
CONTROLS = {
    "control: intensity": dict(name="controls.Intensity"),
    "control: gradient": dict(name="controls.Gradient"),
    "control: random": dict(name="controls.Random"),
}
SCANNED_CONTROLS = {
    "control: residual": dict(name="controls.Residual"),
    "control: posterior spread": dict(name="controls.PosteriorSpread"),
}
DEFAULTS = dict(
    weight=3.0,  # DiffNB's, whose network the paper takes for CIFAR-10
    cut=0.3,
    stop_psnr=6.39,
    distance="logits.l1",
    against="input",
    steps=10,  # few, for a CPU
    skipped=4,  # at most 3/5 of the levels, as in the release's fast setting
    score="KNN",
)
"""As published, but for the number of levels."""
Chosen = dict[str, dict[str, Any]]
"""{name in the table: settings of the detector}."""


def diffguard(tuned: Mapping[str, Any], **changes) -> dict[str, Any]:
    """Return the settings of DiffGuard.

    Args:
      tuned: see `DEFAULTS` and tune_diffguard.py.
      changes: of other settings.
    """
    guidance = dict(
        name="classifier_free.ClassifierFree", weight=tuned["weight"], cut=tuned["cut"]
    )
    return dict(
        name="diffguard.DiffGuard",
        guidance=guidance,
        steps=tuned["steps"],
        skipped=tuned["skipped"],
        ahead=1,
        stop_psnr=tuned["stop_psnr"],
        against=tuned["against"],
        distance=tuned["distance"],
    ) | dict(changes)


def by_classifier(tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of DiffGuard guided by the classifier, as the release is.

    Two crops for its eight, whose log likelihoods are added: four times its scale.
    """
    guidance = dict(name="classifier.AtBlend", scale=12.0, crops=2)
    return diffguard(tuned, guidance=guidance)


def guided(tuned: Mapping[str, Any]) -> Chosen:
    """Return those that ask the prior for what the classifier sees.

    DiffGuard also comes down without guidance, whatever it is compared with; distances
    are taken of what it leaves, and the chosen one does not matter here.
    """
    # One draw for four of the release, and a step for six of its steps.
    levels = timestep_levels(range(0, 361, 120))
    diffnb = dict(name="diffnb.DiffNB", levels=levels, starts=(1, 2, 3), draws=1)
    chains = dict(against="unguided", distance="logits.l1")
    return {OURS: diffguard(tuned, **chains), DIFFNB: diffnb}


def klip() -> Chosen:
    """Return KLIP, of fewer samples and levels than by default."""
    return {KLIP: dict(name="klip.KLIP", level_count=3, filter_width=1.0)}
