"""Digits against clothes and noise, by what a classifier says of them: DiffGuard.

    python -m klip_jax.main --config=mnist_diffguard

40 digits of the test split, 40 pictures of clothes, 60 images that show nothing; 100
digits of the training split that neither network was trained on fit what is fitted and
give conformal p-values. With 40 and 100 images AUROC is, and its 95 % interval,

    DiffGuard             .98  .94 .. 1.00     DiffNB        .80  .72 .. .86
    the same, of logits   .93  .88 .. .97      KNN           .68  .55 .. .82
    MSMA, DDPM-OOD, DiffPath, ViM  1.00        MSP           .50  .41 .. .60

(MSP knows blobs, .97, and not noise and clothes, of which the classifier is certain).
Of digits, DiffGuard flags 1 of 40 at a conformal p < .05, and 92 of the others; under
the law of the model's own draws none and 20, as draws of so small a prior are no clean
digits. 5 min 45 s of CPU time on two cores, where some programs were compiled before,
and with a further detector: DiffGuard guided by the classifier (`classifier.AtBlend`,
scale 12, 2 crops), which cost most and was worse than chance, .37.

Way, reference and distance of DiffGuard were chosen on the last tenth of the training
split, 60 digits and 60 mixed of others; the weight is DiffNB's, the mask DiffGuard's on
ImageNet:

    python experiments/tune_diffguard.py --images=mnist --count=60

The prior knows the ten classes, and so does the classifier; both learnt the first nine
tenths of the 10,000 training images that this copy of MNIST has, in 43 minutes and a
quarter of an hour, on two cores that they shared with other work:

    python -m klip_jax.main --config=mnist_diffguard --mode=train
    python -m klip_jax.main --config=mnist_diffguard:classifier --mode=train

Through half of the pixels it is the same test of what was reconstructed:

    ... --config.scan="dict(operator=dict(name='mask.Random', keep=0.5),
                            noise_std=0.05)"
"""

from klip_jax.assets import class_config

CHOSEN = dict(
    weight=3.0,
    cut=0.3,
    steps=25,
    skipped=10,
    ahead=1,
    stop_psnr=6.39,
    against="input",
    distance="pixel.l1",
)
PRIOR = dict(
    held_out=512,
    augment=dict(shift=1.0, stretch=0.1),
    net=dict(channels=(16, 32, 64), blocks=(1, 1, 2), attention=(), embedding=128),
    recipe=dict(
        steps=5500,
        batch=32,
        learning_rate=2e-3,
        warmup=300,
        ema=0.999,
        log_mean=-0.8,
        log_std=1.5,  # up to where inversion goes
        dtype="float32",
        checkpoint_every=100,
    ),
)
CLASSIFIER = dict(
    held_out=0,
    augment=dict(shift=2.0, stretch=0.2),
    net=dict(stages=(1, 1, 1, 1), width=16, mean=(0.1307,), std=(0.3081,)),
    recipe=dict(
        steps=2160,
        batch=50,
        learning_rate=0.05,
        warmup=200,
        ema=0.99,
        dtype="float32",
        checkpoint_every=100,
        label_smoothing=0.0,
    ),
)


def get_config(trained="prior"):
    """Return the experiment; `trained` says what --mode=train trains."""
    images = dict(
        data=dict(**_reader("train"), part=(0.0, 0.9)),
        test=_reader("test"),
        licence="MNIST, MIT (rasbt/mnist-pngs)",
        init="",
    )
    config = class_config.get_config(
        diffguard=CHOSEN,
        healthy=dict(**_reader("train"), part=(0.9, 1.0), per_group=100),
        neighbour=5,
        classes=10,
        train=class_config.training(
            "mnist_diffguard", trained, images, prior=PRIOR, classifier=CLASSIFIER
        ),
    )
    with config.unlocked():
        config.data = dict(
            name="several.load",
            data=dict(
                files=dict(
                    name="npz.load_arrays",
                    groups=dict(
                        id=("mnist_28.npz", "test_images"),
                        fashion=("fashion_mnist_28.npz", "test_images"),
                    ),
                    per_group=40,
                    root="",
                ),
                noise=dict(
                    name="noise.load",
                    groups=("blobs", "gaussian", "smooth"),
                    per_group=20,
                    shape=(28, 28, 1),
                    seed=0,
                ),
            ),
            measurements="",
        )
        config.prior.weights = "mnist_28"
        config.classifier.weights = "mnist_resnet"
        config.calibration.draws = 128
    return config


def _reader(split):
    return dict(
        name="npz.load_arrays",
        groups=dict(id=("mnist_28.npz", f"{split}_images")),
        root="",
    )
