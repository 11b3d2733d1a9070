"""The default experiment: lesions in procedural abdominal CT phantoms.

    python -m klip_jax.main

64x64 phantoms, 24 parallel views over 180 degrees, noise of 0.1 pixel lengths (about
0.5 % of a central ray). The prior and its reference law come with the package. The
noise levels and the map's settings were chosen on phantoms of other seeds.

The controls emphasise the same scale as KLIP's map, over the same blocks: their
settings refer to KLIP's, so that one change moves all.
"""

from ml_collections import ConfigDict

CONTROLS = dict(
    intensity="Intensity",
    intensity_inverted="IntensityInverted",
    intensity_distance="IntensityDistance",
    equalised_intensity="EqualisedIntensity",
    gradient="Gradient",
    residual="Residual",
    posterior_spread="PosteriorSpread",
    denoised_distance="DenoisedDistance",
    random="Random",
)
"""What a detector must beat, by the name of its class; see `detectors.controls`."""
_SHARED = ("block", "top_share")
_FILTERS = ("filter_width", "filter_weight", "pool_width")
_FILTERED = ("residual", "denoised_distance")


def get_config() -> ConfigDict:
    """Return the settings of the default experiment."""
    config = ConfigDict(
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
            scan=dict(
                operator=dict(name="ct.ParallelBeam", views=24, span=180.0),
                noise_std=0.1,
            ),
            prior=dict(weights="phantom_ct"),
            classifier=dict(weights=""),
            posterior=dict(
                samples=6,
                steps=20,
                sigma_max=20.0,
                sigma_min=0.01,
                sampler=dict(name="resampling.Resampling"),
                guidance=dict(
                    name="conditional_gaussian.ConditionalGaussian", prior_inflation=3.0
                ),
            ),
            detectors=dict(
                klip=dict(
                    name="klip.KLIP",
                    guidance=dict(
                        name="conditional_gaussian.ConditionalGaussian",
                        prior_inflation=3.0,
                    ),
                    level_count=4,
                    window=(0.02, 0.1),
                    chunk=1,
                    map="coherent",
                    filter_width=2.0,
                    filter_weight=0.4,
                    pool_width=3.0,
                    block=4,
                    top_share=0.02,
                    per_position=False,
                ),
            ),
            main="klip",
            calibration=dict(
                draws=256,
                sampler=dict(name="heun.Heun", churn=0.4),
                steps=60,
                law="",
                healthy=None,
            ),
            run=dict(images_at_once=1, chunk=16, lease_minutes=10.0),
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
                    optimiser="adam",
                    weight_decay=0.0,
                    label_dropout=0.1,
                    label_smoothing=0.0,
                ),
            ),
        )
    )
    add_controls(config)
    return config


def add_controls(config: ConfigDict) -> None:
    """Add all controls to `config.detectors`, with the settings of its `klip`."""
    klip = config.detectors.klip
    with config.unlocked():
        for name, kind in CONTROLS.items():
            shared = _SHARED + (_FILTERS if name in _FILTERED else ())
            settings = {field: klip.get_ref(field) for field in shared}
            config.detectors[name] = dict(name=f"controls.{kind}", **settings)
