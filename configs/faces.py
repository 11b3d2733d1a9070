"""Scars on faces, behind a blur or a hole.

    python -m klip_jax.main --config=faces
    python -m klip_jax.main --config=faces:inpaint

64x64 grey photographs, noise of 0.01: Gaussian blur of 2.25 pixels (9 at 256 pixels, as
in the KLIP paper), or a hole of 24x24. Scars and other people's faces without one are
faces_ood_64. Real people: never publish a single image. The prior has 11,306 steps of
128 images on nine tenths of the train split of faces_gray_64 (two minutes on an H200);
the map's settings were chosen with strokes and lesions simulated in the others:

    python -m klip_jax.main --config=faces --mode=train
    python experiments/choose_settings.py --images=faces
    python experiments/choose_settings.py --images=faces_inpaint
"""

from klip_jax.assets.default_config import get_config as default

OPERATORS = dict(
    blur=dict(name="blur.GaussianBlur", std=2.25),
    inpaint=dict(name="mask.Box", top=29, left=13, height=24, width=24),
)
MAPS = dict(
    blur=dict(map="coherent_guided", filter_weight=0.0, pool_width=3.0),
    inpaint=dict(map="coherent", filter_weight=0.4, pool_width=1.5),
)


def get_config(degradation="blur"):
    if degradation not in OPERATORS:
        raise ValueError(f"faces.py:{degradation}: choose one of {sorted(OPERATORS)}")
    config = default()
    with config.unlocked():
        config.data = dict(
            name="npz.load",
            file="faces_ood_64.npz",
            groups=("id", "scar"),
            per_group=50,
            oval=(0.53, 0.5, 0.4, 0.31),  # of the mean of the training images
            root="",
            measurements="",
        )
        config.scan = dict(operator=OPERATORS[degradation], noise_std=0.01)
        config.prior.weights = "faces_gray_64"
        # The draws of the law that ships were made so.
        config.calibration.update(steps=25, sampler=dict(churn=0.0))
        config.detectors.klip.update(
            MAPS[degradation], window=(0.02, 0.8), level_count=6, filter_width=1.0
        )
        faces = dict(name="npz.load", file="faces_gray_64.npz", root="")
        config.train.data = dict(split="train", part=(0.0, 0.9), **faces)
        config.train.test = dict(split="test", per_group=128, **faces)
        config.train.licence = "facial_expressions (muxspace): Apache-2.0; real people"
        config.train.augment = dict(
            shift=2.0, stretch=0.08, mirror=0.5, contrast=0.08, brightness=0.02
        )
        config.train.net.channels = (64, 96, 192)
        config.train.recipe.steps, config.train.recipe.batch = 11306, 128
        config.train.recipe.dtype = "bfloat16"
    return config
