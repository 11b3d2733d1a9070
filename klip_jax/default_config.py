"""The default experiment: lesions in procedural abdominal CT phantoms.

    python -m klip_jax.main

64x64 phantoms, 24 parallel views over 180 degrees, noise of 0.1 pixel lengths (about
0.5 % of a central ray). The prior and its reference law come with the package. The
noise levels and the map's settings were chosen on phantoms of other seeds.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the settings of the default experiment."""
    return ConfigDict(
        dict(
            seed=0,
            data=dict(
                name="phantom_set.load",
                groups=("id", "lesion"),
                per_group=16,
                size=64,
                seed=2026,
                root="",
                measurements="",
            ),
            operator=dict(name="ct.ParallelBeam", views=24, span=180.0),
            noise_std=0.1,
            prior=dict(weights=""),
            estimator=dict(
                samples=6,
                steps=20,
                sigma_max=20.0,
                sigma_min=0.01,
                inflation=3.0,
                levels=4,
                window=(0.02, 0.1),
                block=4,
                scale=2.0,
                emphasis=0.4,
                pooling=3.0,
                map="coherent",
                top=0.02,
                chunk=1,
            ),
            calibration=dict(draws=256, steps=25, per_position=False, law=""),
            images_at_once=1,
            train=dict(
                data=dict(name="phantom_set.source", size=64),
                augment=dict(
                    shift=0.0, stretch=0.0, mirror=0.0, contrast=0.0, brightness=0.0
                ),
                net=dict(name="unet.UNet", channels=(48, 64, 128), norm_over="image"),
                prior=dict(name="edm.EDM", sigma_data=0.5),
                test=dict(
                    name="phantom_set.load", groups=("id",), per_group=128, seed=7
                ),
                licence="none needed: procedural phantoms of this package",
                init="",
                recipe=dict(
                    steps=5000,
                    batch=32,
                    learning_rate=1e-3,
                    warmup=200,
                    ema=0.999,
                    log_mean=-1.2,
                    log_std=1.2,
                    seed=0,
                    dtype="float32",
                    checkpoint_every=100,
                    keep=2,
                ),
            ),
        )
    )
