"""Digits against clothes and noise, by what a classifier says of them: DiffGuard.

    python -m klip_jax.main --config=mnist_diffguard

The prior knows the ten classes, and so does the classifier; both were trained here, on
the 10,000 training images that this copy of MNIST has:

    python -m klip_jax.main --config=mnist_diffguard --mode=train
    python -m klip_jax.main --config=mnist_diffguard:classifier --mode=train
"""

from klip_jax.assets.default_config import get_config as default

TRAINED = "prior", "classifier"


def get_config(trained="prior"):
    """Return the experiment; `trained` says what --mode=train trains."""
    if trained not in TRAINED:
        raise ValueError(f"mnist_diffguard.py:{trained}: choose one of {TRAINED}")
    config = default()
    with config.unlocked():
        config.prior.weights = "mnist_28"
        config.classifier.weights = "mnist_resnet"
        config.train = _prior() if trained == "prior" else _classifier()
    return config


def _prior():
    return dict(
        **_images(512),
        augment=dict(shift=1.0, stretch=0.1),
        net=dict(
            name="conditional_unet.ConditionalUNet",
            channels=(16, 32, 64),
            blocks=(1, 1, 2),
            attention=(),
            classes=10,
            embedding=128,
        ),
        prior=dict(name="edm.EDM", sigma_data=0.5),
        recipe=dict(
            steps=5500,
            batch=32,
            learning_rate=2e-3,
            warmup=300,
            ema=0.999,
            log_mean=-0.8,
            log_std=1.5,  # up to where inversion goes
            seed=0,
            dtype="float32",
            checkpoint_every=100,
            keep=2,
            label_dropout=0.1,
        ),
    )


def _classifier():
    return dict(
        **_images(0),
        augment=dict(shift=2.0, stretch=0.2),
        net=dict(
            name="resnet.ResNet",
            stages=(1, 1, 1, 1),
            width=16,
            classes=10,
            mean=(0.1307,),
            std=(0.3081,),
        ),
        prior=None,
        recipe=dict(
            steps=2160,
            batch=50,
            learning_rate=0.05,
            warmup=200,
            ema=0.99,
            seed=0,
            dtype="float32",
            checkpoint_every=100,
            keep=2,
            optimiser="sgd",
            weight_decay=5e-4,
            label_smoothing=0.0,
        ),
    )


def _images(held_out):
    return dict(
        data=dict(
            name="npz.load_arrays",
            groups=dict(id=("mnist_28.npz", "train_images")),
            part=(0.0, 0.9),
            root="",
        ),
        test=dict(
            name="npz.load_arrays",
            groups=dict(id=("mnist_28.npz", "test_images")),
            per_group=held_out,
            root="",
        ),
        licence="MNIST, MIT (rasbt/mnist-pngs)",
        init="",
    )
