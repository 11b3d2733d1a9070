"""Clothes or digits behind a half-covered picture: the benchmark for every day.

    python -m klip_jax.main --config=fashion_inpaint

Every second pixel of a 28x28 image, at random, is measured, with noise of 0.05. Digits
of MNIST are out-of-distribution; there are no masks, so there is no localization. The
prior has 5200 steps of 32 images on the train split of Fashion-MNIST alone (half an
hour on one core):

    python -m klip_jax.main --config=fashion_inpaint --mode=train
"""

from klip_jax.assets.default_config import get_config as default


def get_config():
    config = default()
    with config.unlocked():
        config.data = dict(
            name="npz.load_arrays",
            groups=dict(
                id=("fashion_mnist_28.npz", "test_images"),
                mnist=("mnist_28.npz", "test_images"),
            ),
            per_group=100,
            root="",
            measurements="",
        )
        config.scan = dict(operator=dict(name="mask.Random", keep=0.5), noise_std=0.05)
        config.prior.weights = "fashion_mnist_28"
        # The draws of the law that ships were made so.
        config.calibration.update(steps=25, sampler=dict(churn=0.0))
        config.detectors.klip.update(
            map="coherent_guided",
            window=(0.02, 0.8),
            level_count=6,
            filter_width=1.0,  # 28 pixels, not 64
            filter_weight=0.05,
            pool_width=1.5,
        )
        config.train.data = dict(
            name="npz.load_arrays",
            groups=dict(id=("fashion_mnist_28.npz", "train_images")),
            root="",
        )
        config.train.licence = "Fashion-MNIST, MIT"
        config.train.test = dict(
            name="npz.load_arrays",
            groups=dict(id=("fashion_mnist_28.npz", "test_images")),
            per_group=128,
            root="",
        )
        config.train.net.channels = (32, 64, 96)
    return config
