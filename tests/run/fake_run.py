"""A run in small: 8x8 images, a white Gaussian prior, a scanner that only adds noise.

Everything is reached by its name in the config, "fake_run:Spread" say, so that nothing
here waits for weights or a network.
"""

import copy
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from klip_jax import hub, struct
from klip_jax.data.base import in_memory
from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_map import map_detection
from klip_jax.types import Detection

SHAPE = (8, 8, 1)
RECORD = {"image_shape": list(SHAPE), "net": {"name": "none"}, "prior": {"name": "w"}}


@struct.dataclass
class White:
    """The denoiser of x0 ~ N(mean, var I)."""

    mean: Any = 0.5
    var: Any = 0.01

    def __call__(self, x, sigma):
        return (self.var * x + sigma**2 * self.mean) / (self.var + sigma**2)

    def variance(self, sigma):
        return self.var * sigma**2 / (self.var + sigma**2)


@struct.dataclass
class Brightness(Detector):
    """The brightest blocks of the picture."""

    gain: float = 1.0
    block: int = struct.field(pytree_node=False, default=4)

    def look(self, key, given):
        return {"picture": given.picture.mean(-1)}

    def judge(self, looked):
        return map_detection(self.gain * looked["picture"], block=4, top_share=0.3)

    def extras(self, looked):
        return {"rows": looked["picture"].mean(1)}


@struct.dataclass
class Distance(Detector):
    """|mean of the picture - that of the in-distribution images| over their spread."""

    mean: Any = None
    std: Any = None
    fits = True
    unit = "sd"

    def look(self, key, given):
        return given.picture.mean() + 1e-4 * jax.random.normal(key)

    def fit(self, looked):
        return self.replace(mean=jnp.mean(looked), std=jnp.std(looked))

    def judge(self, looked):
        return Detection(jnp.abs(looked - self.mean) / self.std, jnp.float32(0.1))

    def unseen_factor(self, record):
        return record.get("factor", 1.0)

    def unseen(self, looked, record):
        return record.get("shift", 0.0) + looked


@struct.dataclass
class Misfit(Detector):
    """Of the scan."""

    needs = ("scan", "posterior")

    def look(self, key, given):
        y, mean = given.scan.y, given.posterior.mean
        return jnp.square((y - given.scan.operator(mean)) / given.scan.noise_std)[
            ..., 0
        ]

    def judge(self, looked):
        return Detection(looked.mean(), jnp.full((), jnp.nan), looked)


@struct.dataclass
class Hollow(Misfit):
    """NaN, whatever it looks at."""

    def judge(self, looked):
        return Detection(looked.mean() * jnp.nan, looked.mean(), looked)


@struct.dataclass
class Breaks(Brightness):
    """Not finite where the picture is bright.

    Attributes:
      what: breaks, "score", "map", or "infinite" for the score.
    """

    what: str = struct.field(pytree_node=False, default="score")

    def judge(self, looked):
        said = super().judge(looked)
        bad, first = said.score > 11.0, said.heatmap[:1]
        if self.what == "map":
            spoiled = said.heatmap.at[:1].set(jnp.where(bad, jnp.nan, first))
            return said._replace(heatmap=spoiled)
        value = jnp.inf if self.what == "infinite" else jnp.nan
        return said._replace(score=jnp.where(bad, value, said.score))


@flax.struct.dataclass
class OfFlax(Brightness):
    """With what jax takes for another's program."""


class Closure(Brightness):
    """No pytree."""

    def __init__(self):
        pass


@struct.dataclass
class Asks(Detector):
    """For what is not there."""

    what: str = struct.field(pytree_node=False, default="scan")

    @property
    def needs(self):
        return (self.what,)

    def look(self, key, given):
        return given.pikture


def images(count=10, seed=0, anomalous=True, bad=-1, side=8, id=""):
    """Return `count` images of the prior, every second with a bright square."""
    rng = np.random.default_rng(seed)
    x = np.clip(0.5 + 0.1 * rng.standard_normal((count, side, side, 1)), 0, 1)
    masks = np.zeros((count, side, side), bool)
    if anomalous:
        masks[1::2, 4:8, 0:4] = True
    x = np.where(masks[..., None], np.clip(x + 0.4, 0, 1), x).astype(np.float32)
    if bad >= 0:
        x[bad] = np.nan
    groups = ["lesion" if m.any() else "id" for m in masks]
    ids = [id or f"image {i}/ü" for i in range(count)]
    return in_memory(x, ids, groups, masks=masks, eligible=np.ones_like(masks))


def not_images():
    return 3


def install(monkeypatch, prior=None, record=RECORD, laws=()):
    """Let every name of weights mean `White`."""
    prior = White() if prior is None else prior
    monkeypatch.setattr(hub, "load", lambda name: (prior, dict(record)))
    monkeypatch.setattr(hub, "law_paths", lambda name: list(laws))


SETTINGS = dict(
    seed=0,
    data=dict(name="fake_run:images", count=10, measurements=""),
    scan=dict(operator=dict(name="identity.Identity"), noise_std=0.05),
    prior=dict(weights="white"),
    classifier=dict(weights=""),
    posterior=dict(samples=3, steps=4),
    detectors=dict(
        bright=dict(name="fake_run:Brightness"),
        distance=dict(name="fake_run:Distance"),
        misfit=dict(name="fake_run:Misfit"),
    ),
    main="bright",
    calibration=dict(
        draws=12, sampler=dict(name="heun.Heun"), steps=4, law="", healthy=None
    ),
    run=dict(images_at_once=1, chunk=4, lease_minutes=10.0),
    train=dict(),
)


def settings(**changes):
    """Return a resolved config; "run__chunk=3" is run.chunk = 3."""
    config = copy.deepcopy(SETTINGS)
    for name, value in changes.items():
        *parts, last = name.split("__")
        target = config
        for part in parts:
            target = target[part]
        target[last] = value
    return config
