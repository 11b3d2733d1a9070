"""The benchmarks in which a classifier takes part, and what is run in them.

Sets that show things like those the classifier knows, or things at all, are near; the
others are far. Those of CIFAR-10 go through one codec.
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from klip_jax.assets import default_config
from lab import problems

SEEDS = 3


class ClassBenchmark(NamedTuple):
    """What `detection.py` runs.

    Attributes:
      prior, classifier: names of weights.
      data: reader of the test images, evenly spaced over their files.
      train: reader of training images.
      near, far: images of each group and seed.
      own: in-distribution ones of each seed.
      held: others, which the parts of a combination are compared with.
      operator: of the scanner, None for the images themselves.
      noise_std: of it.
      tuned: whose settings it takes; see tune_diffguard.py.
    """

    prior: str
    classifier: str
    data: dict[str, Any]
    train: dict[str, Any]
    near: dict[str, int]
    far: dict[str, int]
    own: int
    held: int
    operator: dict[str, Any] | None = None
    noise_std: float = 0.05
    tuned: str = "cifar10"

    @property
    def sizes(self) -> dict[str, int]:
        """{group: images of each seed}."""
        return {"id": self.own} | self.near | self.far


def of_config(name: str, **own) -> ClassBenchmark:
    """Return a benchmark of the weights and images of configs/<name>.py."""
    config = problems.of_file(name).to_dict()
    weights = (config[part]["weights"] for part in ("prior", "classifier"))
    data = {k: v for k, v in config["data"].items() if k != "measurements"}
    return ClassBenchmark(*weights, data, config["calibration"]["healthy"], **own)


CIFAR = of_config(
    "cifar10_diffguard",
    near=dict(tiny_imagenet=24),
    far=dict(dtd=4, mnist=4, fashion=4),
    own=24,
    held=24,
)
CIFAR_SCANNED = CIFAR._replace(
    near=dict(tiny_imagenet=8), far=dict(dtd=2, mnist=2, fashion=2), own=8, held=12
)
MNIST = of_config(
    "mnist_diffguard",  # whose healthy images neither network was trained on
    near=dict(fashion=60),
    far=dict(blobs=20, gaussian=20, smooth=20),
    own=60,
    held=60,
    tuned="mnist",
)
MNIST_SCANNED = MNIST._replace(
    near=dict(fashion=24), far=dict(blobs=8, gaussian=8, smooth=8), own=24, held=24
)
HALF = dict(name="mask.Random", keep=0.5)
BLUR = dict(name="blur.GaussianBlur", std=1.5)
FOUR_TIMES = dict(name="superres.Superresolution", factor=4)
BENCHMARKS = {
    "cifar10": CIFAR,
    "cifar10_half": CIFAR_SCANNED._replace(operator=HALF),
    "cifar10_blur": CIFAR_SCANNED._replace(operator=BLUR),
    "cifar10_4x": CIFAR_SCANNED._replace(operator=FOUR_TIMES),
    "mnist": MNIST,
    "mnist_half": MNIST_SCANNED._replace(operator=HALF),
    "mnist_blur": MNIST_SCANNED._replace(operator=BLUR),
}


def settings(own: ClassBenchmark, *, seeds: int = SEEDS, few: int = 0) -> dict:
    """Return a config as plain data, its detectors still to be chosen.

    Args:
      own: of `BENCHMARKS`.
      seeds: how many sets of test images.
      few: images of each group and seed, and twice as many held; 0 for its own.
    """
    config = default_config.get_config().to_dict()
    sizes = {g: few or count for g, count in own.sizes.items()}
    held = 2 * few or own.held
    most = (seeds + 1) * max(held, *sizes.values())
    config["data"] = dict(
        name="lab.class_sets:parts",
        data=so_many(own.data, most),
        seeds=seeds,
        sizes=sizes,
        held=held,
    )
    config["scan"] = None
    if own.operator is not None:
        config["scan"] = dict(operator=own.operator, noise_std=own.noise_std)
    config["prior"]["weights"] = own.prior
    config["classifier"]["weights"] = own.classifier
    config["posterior"].update(samples=4, steps=10)
    config["calibration"].update(draws=0, healthy=None)
    config["run"].update(images_at_once=1, chunk=8)
    return config


def training_images(own: ClassBenchmark, count: int) -> dict[str, Any]:
    """Return, as data of a config, so many training images."""
    return so_many(own.train, count)


def so_many(data: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the same reader for so many images of each group."""
    if "groups" in data:
        return copy.deepcopy(dict(data)) | dict(per_group=count)
    parts = {name: so_many(part, count) for name, part in data["data"].items()}
    return dict(data) | dict(data=parts)
