"""Real tumours in FLAIR brain MRI from a quarter of k-space.

    python -m klip_jax.main --config=brain_mri

64x64 slices, 16 of 64 lines in Hermitian pairs with the centre, orthonormal FFT, noise
of 0.01 per real component. Tumours and tumour-free slices of other patients, paired for
height, are brain_ood_128; tumours are bright in FLAIR: plain intensity is the control
to beat. The prior has 6460 steps of 128 images on the tumour-free slices of nine tenths
of the training patients of brain_mri_lgg_128 (a minute on an H200); the map's settings
were chosen with lesions simulated in slices of all of them, on three draws of 80:

    python -m klip_jax.main --config=brain_mri --mode=train
    python experiments/choose_settings.py --images=brain --per_group=40 --seed=5
"""

from klip_jax.assets.default_config import get_config as default


def get_config():
    config = default()
    slices = dict(root="", shrink=2)
    with config.unlocked():
        config.data = dict(
            name="npz.load",
            file="brain_ood_128.npz",
            groups=("id", "tumour"),
            per_group=40,
            inside=0.1,
            measurements="",
            **slices,
        )
        config.scan = dict(
            operator=dict(name="mri.Cartesian", acceleration=4.0, centre=0.08),
            noise_std=0.01,
        )
        config.prior.weights = "brain_mri_64"
        # The draws of the law that ships were made so.
        config.calibration.update(steps=25, sampler=dict(churn=0.0))
        config.detectors.klip.update(
            map="coherent_guided",
            window=(0.02, 0.8),
            level_count=6,
            filter_width=1.0,
            filter_weight=1.0,
            pool_width=4.5,
        )
        config.train.data = dict(
            name="npz.load",
            file="brain_mri_lgg_128.npz",
            split="train",
            part=(0.0, 0.9),
            healthy="mask_area_256",
            **slices,
        )
        config.train.test = dict(
            name="npz.load",
            file="brain_mri_lgg_128.npz",
            split="test",
            healthy="mask_area_256",
            per_group=128,
            **slices,
        )
        config.train.licence = (
            "LGG segmentation data set (TCIA); upstream CC BY-NC-SA 4.0 (to be checked)"
        )
        config.train.augment = dict(
            shift=3.0, stretch=0.14, mirror=0.5, contrast=0.12, brightness=0.02
        )
        config.train.net.channels = (64, 96, 192)
        config.train.recipe.steps, config.train.recipe.batch = 6460, 128
        config.train.recipe.dtype = "bfloat16"
    return config
