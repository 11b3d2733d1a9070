"""Clothes or digits behind a half-covered picture: the benchmark for every day.

    python -m klip_jax.main --config=configs/fashion_inpaint.py

Every second pixel of a 28x28 image, at random, is measured, with noise of 0.05. Digits
of MNIST are out-of-distribution; there are no masks, so there is no localization. The
prior has 5200 steps of 32 images on the train split of Fashion-MNIST alone (half an
hour on one core):

    python -m klip_jax.main --config=configs/fashion_inpaint.py --mode=train
"""

from klip_jax.default_config import get_config as default


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
        config.operator = dict(name="mask.Random", keep=0.5)
        config.noise_std = 0.05
        config.estimator.map, config.estimator.emphasis = "coherent_guided", 0.05
        config.estimator.window, config.estimator.levels = (0.02, 0.8), 6
        config.estimator.scale, config.estimator.pooling = 1.0, 1.5  # 28 pixels, not 64
        config.prior.weights = "checkpoints/fashion_mnist_28.safetensors"
        config.calibration.law = "checkpoints/fashion_mnist_28_law.npz"
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
