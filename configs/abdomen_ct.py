"""Lesions, streaks and foreign texture in real abdominal CT slices.

    python -m klip_jax.main --config=abdomen_ct

The operator and the noise of the default, on abdomen_ood_64: 25 in-distribution slices
and 25 of each of three groups of anomalies. The prior has 14,536 steps of 128 images on
nine tenths of the train split of abdomen_ct_64 (two minutes on an H200); the map's
settings were chosen with anomalies simulated in the last tenth:

    python -m klip_jax.main --config=abdomen_ct --mode=train
    python experiments/choose_settings.py --images=slices
"""

from klip_jax.assets.default_config import get_config as default


def get_config():
    config = default()
    greys = dict(root="", offset=50.0, scale=205.0)
    with config.unlocked():
        config.data = dict(
            name="npz.load",
            file="abdomen_ood_64.npz",
            groups=("id", "lesion_mid", "lesion_high", "texture"),
            per_group=25,
            measurements="",
            **greys,
        )
        config.prior.weights = "abdomen_ct_64"
        # The draws of the law that ships were made so.
        config.calibration.update(steps=25, sampler=dict(churn=0.0))
        config.detectors.klip.update(
            map="coherent_guided", filter_weight=0.0, window=(0.02, 0.3), level_count=5
        )
        config.train.data = dict(
            name="npz.load",
            file="abdomen_ct_64.npz",
            split="train",
            part=(0.0, 0.9),
            **greys,
        )
        config.train.augment = dict(
            shift=3.0, stretch=0.1, mirror=0.0, contrast=0.06, brightness=0.02
        )
        config.train.net.channels = (64, 96, 192)
        config.train.recipe.steps, config.train.recipe.batch = 14536, 128
        config.train.recipe.dtype = "bfloat16"
        config.train.licence = (
            "MedNIST AbdomenCT; upstream CC BY-SA 4.0 (to be checked)"
        )
        config.train.test = dict(
            name="npz.load",
            file="abdomen_ct_64.npz",
            split="test",
            per_group=128,
            **greys,
        )
    return config
