"""What experiments share in which a classifier takes part and images are looked at.

There is no scanner, unless one is set; `calibration.healthy` are images of a training
split: on half of them detectors are fitted, by the others there are conformal p-values.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from klip_jax.assets.default_config import get_config as default
from klip_jax.detectors.diffnb import timestep_levels

CONTROLS = dict(
    intensity="Intensity",
    intensity_inverted="IntensityInverted",
    gradient="Gradient",
    random="Random",
)
"""Those that look at a picture alone."""
TRAINED: dict[str, dict[str, Any]] = dict(
    prior=dict(
        net=dict(name="conditional_unet.ConditionalUNet"),
        prior=dict(name="edm.EDM", sigma_data=0.5),
        recipe=dict(label_dropout=0.1),
    ),
    classifier=dict(
        net=dict(name="resnet.ResNet"),
        prior=None,
        recipe=dict(optimiser="sgd", weight_decay=5e-4),
    ),
)
"""What the training of each network has in common."""


def get_config(
    *,
    diffguard: Mapping[str, Any],
    healthy: Mapping[str, Any],
    neighbour: int,
    classes: int,
    train: Mapping[str, Any],
    block: int = 4,
) -> ConfigDict:
    """Return the settings of such an experiment but for data and weights.

    Args:
      diffguard: weight and cut of its guidance, and the settings that were chosen, of
        `diffguard.DiffGuard`.
      healthy: reader of images of the training split.
      neighbour: which nearest one counts, of half of them.
      classes: how many.
      train: see `training`.
      block: side of the blocks of the controls' maps, pixels.
    """
    config = default()
    free = dict(
        name="classifier_free.ClassifierFree",
        weight=diffguard["weight"],
        cut=diffguard["cut"],
    )
    with config.unlocked():
        config.scan = None
        config.main = "diffguard"
        config.calibration.healthy = dict(healthy)
        # The draws of the laws that ship were made so.
        config.calibration.update(steps=25, sampler=dict(churn=0.0))
        config.train = dict(train)
        config.detectors = dict(
            diffguard=guided(diffguard, free),
            # What the paper compares on CIFAR-10, in few steps.
            diffguard_logits=guided(
                diffguard, free, steps=10, skipped=4, distance="logits.l1"
            ),
            diffnb=dict(
                name="diffnb.DiffNB",
                levels=timestep_levels(range(0, 361, 120)),
                starts=(1, 2, 3),
                draws=1,
            ),
            msp=dict(name="classifier_logits.MSP"),
            max_logit=dict(name="classifier_logits.MaxLogit"),
            energy=dict(name="classifier_logits.Energy", temperature=1.0),
            gen=dict(name="classifier_logits.GEN", gamma=0.1, largest=classes),
            knn=dict(name="classifier_features.KNN", k=neighbour),
            vim=dict(name="classifier_features.ViM", dimensions=0),
            ddpm_ood=dict(
                name="noised_reconstruction.DDPMOOD", levels=(0.1, 0.4, 0.8), steps=3
            ),
            msma=dict(name="msma.MSMA", levels=spaced(0.01, 1.0)),
            diffpath=dict(
                name="diffpath.DiffPath6D",
                levels=spaced(0.01, 20.0),
                components=(1, 2),
                folds=4,
            ),
            **{
                name: dict(name=f"controls.{kind}", block=block, top_share=0.1)
                for name, kind in CONTROLS.items()
            },
        )
    return config


def training(
    config: str, asked: str, images: Mapping[str, Any], **own: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how one of the networks is trained.

    Args:
      config: name of the file, for the message.
      asked: of `TRAINED`.
      images: the readers `data` and `test`, and what is known of them.
      own: of each network held_out, how many test images it is measured on (0: all),
        and augment, net and recipe as far as they differ between experiments.

    Raises:
      ValueError: if another network is asked for.
    """
    if asked not in TRAINED:
        raise ValueError(f"{config}.py:{asked}: choose one of {tuple(TRAINED)}")
    shared, mine = TRAINED[asked], own[asked]
    return dict(images) | dict(
        test=dict(images["test"], per_group=mine["held_out"]),
        augment=dict(mine["augment"]),
        net=dict(shared["net"], classes=10, **mine["net"]),
        prior=shared["prior"],
        recipe=dict(shared["recipe"], seed=0, keep=2, **mine["recipe"]),
    )


def guided(
    settings: Mapping[str, Any], guidance: Mapping[str, Any], **changes
) -> dict[str, Any]:
    """Return DiffGuard's settings, guided so, with changes."""
    own = {k: v for k, v in settings.items() if k not in ("weight", "cut")}
    return dict(name="diffguard.DiffGuard", guidance=guidance) | own | changes


def spaced(lowest: float, highest: float) -> tuple[float, ...]:
    """Return six noise levels, in geometric steps."""
    return tuple(float(s) for s in np.geomspace(lowest, highest, 6))
