"""The problems that experiments are run on, and the images their settings come from.

Tuning images are never those that results are reported on: phantoms of another seed,
images of the train splits with anomalies simulated there (`phantoms/simulated.py`).
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from klip_jax import hub
from klip_jax.assets import default_config
from klip_jax.config import ROOMS, build
from klip_jax.data.base import ImageSet
from klip_jax.detectors.klip import KLIP
from klip_jax.operators.base import Operator
from klip_jax.posterior import PosteriorSampler
from klip_jax.priors.base import NetworkPrior
from klip_jax.signatures import construct

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


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


class Setup(NamedTuple):
    """What a config runs, built.

    Attributes:
      prior, operator, noise_std: the scanner and what it scans.
      sampler: of the posterior.
      klip: the config's own detector.
      record: what the weights say of themselves.
    """

    prior: NetworkPrior
    operator: Operator
    noise_std: float
    sampler: PosteriorSampler
    klip: KLIP
    record: Mapping[str, Any]

    @property
    def scanner(self) -> tuple[NetworkPrior, Operator, float]:
        """(prior, operator, noise_std)."""
        return self.prior, self.operator, self.noise_std


def config(name: str) -> ConfigDict:
    """Return the ConfigDict of `PROBLEMS[name]`."""
    problem = PROBLEMS[name]
    if not problem.config:
        return default_config.get_config()
    return of_file(problem.config, *problem.given)


def of_file(name: str, *given: str) -> ConfigDict:
    """Return the ConfigDict of configs/<name>.py, its `get_config` given these."""
    path = CONFIGS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*given)


def settings(name: str, **data) -> dict[str, Any]:
    """Return the config of `PROBLEMS[name]` as plain data, its images changed."""
    chosen = config(name).to_dict()
    return chosen | {"data": chosen["data"] | data}


def images(settings: Mapping[str, Any]) -> ImageSet:
    """Return the images of a config."""
    data = {k: v for k, v in settings["data"].items() if k != "measurements"}
    return build("data", data)


def tuning_data(name: str, per_group: int, seed: int, **changes) -> dict[str, Any]:
    """Return, as data of a config, what the settings of a problem are chosen on.

    `changes` of its `tuning` count where it has one.
    """
    own = PROBLEMS[name].tuning
    if own is None:
        return dict(name="phantom_set.load", per_group=per_group, seed=seed)
    number = dict(per_group=per_group, seed=seed)
    return {"name": "simulated.load", **own, **changes, **number}


def tuning_images(name: str, per_group: int, seed: int, **changes) -> ImageSet:
    """Return the images that the settings of `PROBLEMS[name]` are chosen on."""
    return build("data", tuning_data(name, per_group, seed, **changes))


def setup(settings: Mapping[str, Any], weights: str = "") -> Setup:
    """Build what a config runs.

    Args:
      settings: of a config, as plain data.
      weights: another prior than the config's.
    """
    prior, record = hub.load(weights or settings["prior"]["weights"])
    scan, shape = settings["scan"], tuple(record["image_shape"])
    return Setup(
        prior,
        build("operators", scan["operator"], shape),
        float(scan["noise_std"]),
        posterior_sampler(settings),
        build("detectors", settings["detectors"][settings["main"]]),
        record,
    )


def posterior_sampler(settings: Mapping[str, Any]) -> PosteriorSampler:
    """Build how the posterior of a config is drawn."""
    parts = {
        name: build(ROOMS[name], value) if isinstance(value, Mapping) else value
        for name, value in settings["posterior"].items()
    }
    return construct(PosteriorSampler, "posterior", parts)
