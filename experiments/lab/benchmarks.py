"""The benchmarks of `detection.py`: problems with test images, and changes of them."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial

from klip_jax.operators.base import Operator
from klip_jax.operators.ct import ParallelBeam
from lab import problems


class Benchmark(NamedTuple):
    """What `detection.py` runs.

    Attributes:
      problem: of `PROBLEMS`.
      per_group: images of each group.
      data: changes of the config's; all of it if it has a name.
      operator: changes of the config's.
      finer: simulate on a grid twice as fine as the one that is inverted.
      bounded: the problem whose supervised bound holds for its images, "" for none.
      released: run KLIP as released too, which costs more than all others together.
    """

    problem: str
    per_group: int = 25
    data: dict[str, Any] | None = None
    operator: dict[str, Any] | None = None
    finer: bool = False
    bounded: str = ""
    released: bool = True


ABDOMEN = dict(groups=("id", "lesion_mid", "lesion_high", "texture", "streak"))
FAR = dict(
    name="npz.load_arrays",
    groups={
        "id": ("abdomen_ood_64.npz", "id_images"),
        "far": ("medical_ood_64.npz", "images", 0.0, 255.0),
    },
    offset=50.0,
    scale=205.0,
    measurements="",
)
BENCHMARKS = {
    "A": Benchmark("slices", data=ABDOMEN, bounded="slices"),
    "A_low": Benchmark(
        "slices", data=dict(groups=("id", "lesion_low")), released=False
    ),
    "A_12_views": Benchmark(
        "slices", data=ABDOMEN, operator=dict(views=12), released=False
    ),
    "A_finer": Benchmark("slices", data=ABDOMEN, finer=True, released=False),
    "A_far": Benchmark("slices", data=FAR, released=False),
    "B": Benchmark("brain", 40, bounded="brain"),
    "B_all": Benchmark("brain", 190),
    "C": Benchmark("faces", 50, bounded="faces"),
    "C_inpaint": Benchmark("faces_inpaint", 50, bounded="faces_inpaint"),
    "D": Benchmark("clothes"),
}


def settings(name: str, per_group: int = 0) -> dict[str, Any]:
    """Return the config of `BENCHMARKS[name]` as plain data, 0 for its own number."""
    own = BENCHMARKS[name]
    config = copy.deepcopy(problems.settings(own.problem))
    changes = (own.data or {}) | {"per_group": per_group or own.per_group}
    config["data"] = changes if "name" in changes else config["data"] | changes
    config["scan"]["operator"] |= own.operator or {}
    return config


def finer(operator: Operator) -> Callable:
    """Return a CT scanner as it sees images on a grid twice as fine.

    Pixels of half the side, interpolated linearly, under strips of the same width: what
    is inverted then has pixels that are too large and too sharp.
    """
    height, width, channels = operator.in_shape
    views, detectors = operator.out_shape
    fine = ParallelBeam(
        (2 * height, 2 * width, channels),
        views=views,
        detectors=detectors,
        pixel_size=0.5,
        pitch=1.0,
        dense=False,
    )

    def measure(fine, x):
        # In pixel lengths of the coarse grid.
        return fine(jax.image.resize(x, fine.in_shape, "linear")) / 2

    return Partial(measure, fine)
