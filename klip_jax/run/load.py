"""A prior by name, with the scan it was calibrated for: what `detect` needs besides y.

What is built here is what a run builds of the same settings, so that the library's
numbers are those of the command line.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from klip_jax import hub
from klip_jax.calibration import widened
from klip_jax.detect import Setup
from klip_jax.run import scan_card
from klip_jax.run.job import scene_of
from klip_jax.run.rehearse import Shapes, build_detector
from klip_jax.run.shipped import law_fingerprints, shipped_laws


def load(
    name: str | os.PathLike,
    scan: str = "",
    *,
    settings: Mapping[str, Any] | None = None,
) -> Setup:
    """Return a prior with scanner, detector and reference law, as they were calibrated.

    >>> import klip_jax
    >>> setup = klip_jax.load("phantom_ct")  # a klip_jax.Setup
    >>> setup.operator.out_shape, setup.noise_std, len(setup.law)
    ((24, 91), 0.1, 199)

    `klip_jax.detect(y, setup, key=setup.key("scan 1"))` then is what `klip detect
    --measurements=... --prior=phantom_ct` says of the measurements named "scan 1".

    Args:
      name: of weights, as for `load_prior`.
      scan: for which scan, where the weights were calibrated for several.
      settings: instead of those that lie beside the weights; see `run.scan_card`.

    Returns:
      A `Setup`.

    Raises:
      FileNotFoundError: if there are no such weights, or nothing says for what scan.
      ValueError: if a file is broken, or there are several scans and none is named.
    """
    weights = str(name)
    prior, record = hub.load(weights)
    card = scan_card.find(weights, scan) if settings is None else settings
    if card is None:
        raise FileNotFoundError(
            f"{weights}: no {weights}_scan.json beside it says for what scan it was "
            "calibrated: give detect(y, operator, noise_std, prior), or make law and "
            "card with klip calibrate"
        )
    shape, main = tuple(record["image_shape"]), card["main"]
    tree = {
        **card,
        "prior": {"weights": weights},
        "classifier": {"weights": ""},
        "calibration": {"law": "", "healthy": None, **card["calibration"]},
    }
    scene = scene_of(tree, prior, Shapes(shape, shape))
    detector = build_detector(main, card["detectors"][main])
    prints = law_fingerprints(tree, record, scene, {main: detector})
    laws = shipped_laws(tree, {main: detector}, prints)
    law, of = laws.healthy.get(main), "healthy images"
    if law is None:
        drawn = laws.draws.get(main, np.zeros(0, np.float32))
        law, of = widened(drawn, detector, record), "draws of the model"
    assert scene.posterior is not None and scene.noise_std is not None
    return Setup(
        *(prior, scene.operator, scene.noise_std, detector, main, scene.posterior),
        *(law, of, card, record),
    )
