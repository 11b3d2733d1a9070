"""The problems that experiments are run on, and the images their settings come from.

Tuning images are never those that results are reported on: phantoms of another seed,
images of the train splits with anomalies simulated there (`data/simulated.py`).
"""

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.tree_util import Partial

from klip_jax import default_config
from klip_jax.build import build, load_prior
from klip_jax.data import phantom_set, simulated
from klip_jax.operators.ct import ParallelBeam
from klip_jax.workdir import shipped

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


class Problem(NamedTuple):
    """Images, a scanner and a prior.

    Attributes:
      config: name of its file in configs/, "" for the default.
      given: arguments of its `get_config`.
      tuning: of `simulated.load`; None where nothing is simulated in real images.
    """

    config: str = ""
    given: tuple[str, ...] = ()
    tuning: dict[str, Any] | None = None


HELD_OUT = (0.9, 1.0)  # the part of the train splits that no prior has seen
SLICES = dict(
    file="abdomen_ct_64.npz",
    part=HELD_OUT,
    greys=(0.3, 0.75),
    groups=("lesion", "grating", "bad_views"),
    offset=50.0,
    scale=205.0,
)
BRAIN = dict(
    file="brain_mri_lgg_128.npz",
    # All training patients: the last tenth is of one hospital, whose slices are darker
    # and smoother than those of the others.
    part=(0.0, 1.0),
    healthy="mask_area_256",
    shrink=2,
    greys=(0.08, 0.4),
    groups=("lesion",),  # disease in a brain is not foreign texture
    # Eight in ten tumours of the training patients: root of the mask's area over pi.
    radius=(2.5, 9.0),
)
FACES = dict(
    file="faces_gray_64.npz",
    part=HELD_OUT,
    greys=(0.05, 0.95),
    groups=("stroke", "lesion"),
    oval=(0.53, 0.5, 0.4, 0.31),  # where faces are in the mean of the training images
)
PROBLEMS = {
    "phantoms": Problem(),
    "slices": Problem("abdomen_ct", tuning=SLICES),
    "brain": Problem("brain_mri", tuning=BRAIN),
    "faces": Problem("faces", ("blur",), FACES),
    "faces_inpaint": Problem("faces", ("inpaint",), FACES),
    "clothes": Problem("fashion_inpaint"),
}
TUNED = [name for name in PROBLEMS if name != "clothes"]


def config(name):
    """Return the ConfigDict of `PROBLEMS[name]`."""
    problem = PROBLEMS[name]
    if not problem.config:
        return default_config.get_config()
    path = CONFIGS / f"{problem.config}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*problem.given)


def tuning_images(name, per_group, seed, **changes):
    """Return the images that the settings of `PROBLEMS[name]` are chosen on.

    `changes` of its `tuning` count where it has one.
    """
    tuning = PROBLEMS[name].tuning
    if tuning is None:
        return phantom_set.load(per_group=per_group, seed=seed)
    return simulated.load(**tuning | changes, per_group=per_group, seed=seed)


def scanner(settings, image_shape, weights=""):
    """Return (prior, its record, operator, noise_std) of a config as plain data."""
    weights = weights or settings["prior"]["weights"]
    prior, record = load_prior(shipped(weights, "phantom_ct.safetensors"))
    operator = build("operators", settings["operator"], image_shape)
    return prior, record, operator, settings["noise_std"]


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


def benchmark(name, per_group=0):
    """Return the config of `BENCHMARKS[name]` as plain data, 0 for its own number."""
    own = BENCHMARKS[name]
    settings = config(own.problem).to_dict()
    changes = (own.data or {}) | {"per_group": per_group or own.per_group}
    settings["data"] = changes if "name" in changes else settings["data"] | changes
    settings["operator"] |= own.operator or {}
    return settings


def finer_scanner(job):
    """Return the CT scanner of a job as it sees images on a grid twice as fine.

    Pixels of half the side, interpolated linearly, under strips of the same width: what
    is inverted then has pixels that are too large and too sharp.
    """
    height, width, channels = job.operator.in_shape
    views, detectors = job.operator.out_shape
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
