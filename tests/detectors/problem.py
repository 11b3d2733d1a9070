"""One small problem where all is known, for the tests of detectors.

8x8 images of a smooth Gaussian prior, seen by CT of 8 views; an odd image is a draw
with a bright spot.
"""

import importlib
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax import detectors, struct
from klip_jax.detectors.base import Detector
from klip_jax.detectors.controls import Intensity
from klip_jax.detectors.msma import BlockMSMA
from klip_jax.operators.ct import ParallelBeam
from klip_jax.posterior import PosteriorSampler
from klip_jax.priors.analytic import Gaussian
from klip_jax.scan import simulate
from klip_jax.types import Given

SHAPE, NOISE_STD = (8, 8, 1), 0.05
OPERATOR = ParallelBeam(SHAPE, views=8)
# Settings that cost, by the name of their field: no more than this in tests.
AT_MOST = dict(samples=3, steps=25, subsets=4, k=5, pairs=1)
# And those without a default.
REQUIRED = dict(detectors=dict(intensity=Intensity(), msma=BlockMSMA(block=2)))
# And those whose default is refused: a second prior, of broader images.
BROADER = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(64), jnp.full(64, 1.0))
INSTEAD = dict(other=BROADER)


def classes() -> dict[str, type[Detector]]:
    """Return every detector that is a public class of a file in the folder, by name."""
    found = {}
    for path in sorted(Path(detectors.__file__).parent.glob("[!_]*.py")):
        if path.stem.split("_")[0] == "base":
            continue
        module = importlib.import_module(f"klip_jax.detectors.{path.stem}")
        for name, value in vars(module).items():
            own = isinstance(value, type) and value.__module__ == module.__name__
            if own and issubclass(value, Detector) and not name.startswith("_"):
                found[f"{path.stem}.{name}"] = value
    return found


def build(kind: type[Detector]) -> Detector:
    """Build a detector with its defaults, but where they cost too much for tests."""
    settings = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.default is parameter.empty:
            settings[name] = REQUIRED[name]
        elif name in INSTEAD:
            settings[name] = INSTEAD[name]
        elif name in AT_MOST:
            settings[name] = min(parameter.default, AT_MOST[name])
    return kind(**settings)


@struct.dataclass
class Alike(Gaussian):
    """A Gaussian that knows classes, of which images look alike."""

    def given(self, label):
        return self


def smooth_prior() -> Gaussian:
    """Return a Gaussian of deviation .2 around .5, correlated over two pixels."""
    axis = np.arange(8)
    one = np.exp(-((axis[:, None] - axis) ** 2) / 8) + 0.02 * np.eye(8)
    covariance = jnp.float32(0.04 * np.kron(one, one))
    return Alike.from_covariance(jnp.full(SHAPE, 0.5), covariance)


@struct.dataclass
class Smoothness:
    """A classifier that is less sure the rougher an image is, and has no arrays.

    Features are 1 / (1 + 20 r) and the shares of r, the mean squared difference between
    neighbours, that are of rows and of columns, each over the whole and by half.
    """

    @property
    def head(self):
        weight = jnp.zeros((6, 3)).at[0].set(jnp.array([8.0, 0.0, -4.0]))
        return weight, jnp.array([0.0, 1.0, 0.0])

    def features(self, x):
        rows, columns = (jnp.diff(x[..., 0], axis=axis) ** 2 for axis in (0, 1))
        halves = [part.mean() for a in (rows, columns) for part in jnp.split(a[:6], 2)]
        rough = rows.mean() + columns.mean()
        return jnp.stack([1 / (1 + 20 * rough), rough, *halves])

    def of_features(self, features):
        weight, bias = self.head
        return jnp.matmul(features, weight, precision="highest") + bias


def spots(key, n):
    """Return n spots of height 1, a pixel wide [n, 8, 8], nowhere at the edge."""
    centre = jax.random.uniform(key, (2, n, 1, 1), minval=1.5, maxval=5.5)
    rows, columns = jnp.ogrid[:8, :8]
    return jnp.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2))


def measured(key, x, prior) -> Given:
    """Return what there is to look at of an image that was measured."""
    key_noise, key_samples = jax.random.split(key)
    scan = simulate(key_noise, OPERATOR, x, NOISE_STD)
    posterior = PosteriorSampler()(key_samples, scan, prior)
    eligible = jnp.ones(SHAPE[:2], bool)
    return Given(prior, scan, posterior, classifier=Smoothness(), eligible=eligible)


def only(given: Given, needs: tuple[str, ...]) -> Given:
    """Return what a detector says it needs, and nothing else."""
    fields = {name: getattr(given, name) for name in needs if name != "picture"}
    if "picture" in needs and "posterior" not in needs:
        fields["image"] = given.picture
    return Given(given.prior, **fields)


def counting(calls: list):
    """Return a denoiser that appends to `calls` at every call, also inside jit."""

    @struct.dataclass
    class Counting:
        def __call__(self, x, sigma):
            jax.debug.callback(lambda _: calls.append(1), x)
            return 0.5 * x

        def given(self, label):
            return self

        def variance(self, sigma):
            return 0.1 * sigma

    return Counting()
