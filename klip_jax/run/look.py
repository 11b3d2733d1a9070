"""Some images through posterior and detectors: every network call of a run is here.

    draw       a draw of the model, where no image is given
    measure    y = A x + n, where no measurements are given
    sample     the posterior of a scan, drawn once for all detectors
    look       what a detector sees, by a program of its own, so that its time is told
    judge      its detection, if it needs no fit or has had it

Each is a function of one image, mapped and sharded over devices; prior, operator and
detectors are arguments, so that one compiled program serves all their numbers.
"""

import functools
import time
from collections.abc import Container, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from klip_jax import keys
from klip_jax.parallel import shard_vmap
from klip_jax.posterior import PosteriorSampler, at_null_label
from klip_jax.prior_predictive import SAMPLER, prior_draw
from klip_jax.run.inputs import Batch
from klip_jax.scan import simulate
from klip_jax.types import Detection, Detector, Given, Posterior, Scan


class Scene(NamedTuple):
    """What all images share.

    Attributes:
      prior, classifier: see `types.Given`.
      operator, noise_std: of the scanner; None without one.
      posterior: how the posterior is drawn; None without a scanner.
      drawer: sampler of draws of the model; see `prior_draw`.
    """

    prior: Any
    classifier: Any = None
    operator: Any = None
    noise_std: float | None = None
    posterior: PosteriorSampler | None = None
    drawer: Any = SAMPLER


class Seen(NamedTuple):
    """What one detector made of some images.

    Attributes:
      looked: a pytree of arrays [n, ...].
      detection, extras: None and {} if it is to be fitted first.
      seconds: an image.
    """

    looked: Any
    detection: Detection | None
    extras: dict[str, np.ndarray]
    seconds: float


class Views(NamedTuple):
    """What a batch of images gave.

    Attributes:
      picture: {"mean", "std", "naive"} [n, H, W, C], those that there are.
      misfit, first_bad_step: [n] of the posterior; NaN and -1 without.
      seconds: an image, of drawing, measuring and the posterior.
      seen: by detector.
    """

    picture: dict[str, np.ndarray]
    misfit: np.ndarray
    first_bad_step: np.ndarray
    seconds: float
    seen: dict[str, Seen]


def network_calls(scene: Scene, detector: Detector) -> int:
    """Return the network calls of one look at one image, those of sharing not counted.

    Some look at every sample of the posterior: they tell by `calls(samples)`.
    """
    if scene.posterior is not None and hasattr(detector, "calls"):
        return int(detector.calls(scene.posterior.samples))
    return int(detector.network_calls)


def draw(scene: Scene, key, *, shape, steps):
    """Draw an image of the model."""
    key = jax.random.fold_in(key, keys.DRAW)
    prior = at_null_label(scene.prior)
    return prior_draw(key, prior, shape, sampler=scene.drawer, steps=steps)


def measure(scene: Scene, key, image):
    """Simulate the measurements of an image."""
    key = jax.random.fold_in(key, keys.NOISE)
    assert scene.noise_std is not None  # there is a scanner
    return simulate(key, scene.operator, image, scene.noise_std).y


def sample(scene: Scene, key, y) -> tuple[Posterior, Any]:
    """Return the posterior of y, and the operator's quick picture of it."""
    assert scene.posterior is not None  # there is a scanner
    key = jax.random.fold_in(key, keys.POSTERIOR)
    posterior = scene.posterior(key, _scan(scene, y), scene.prior)
    return posterior, scene.operator.naive_inverse(y)


def look(scene: Scene, detector: Detector, name, batch: Batch, posterior):
    """Return what a detector, by the words of its name, sees of one image."""
    key = keys.folded(jax.random.fold_in(batch.key, keys.DETECTOR), name)
    given = Given(
        scene.prior,
        scan=None if scene.operator is None else _scan(scene, batch.y),
        posterior=posterior,
        # Behind a scanner the image itself is what nobody knows.
        image=batch.image if scene.operator is None else None,
        classifier=scene.classifier,
        eligible=batch.eligible,
    )
    return detector.look(key, given)


def judge(detector: Detector, looked) -> tuple[Detection, dict]:
    """Return the detection and the extras of one image."""
    return detector.judge(looked), detector.extras(looked)


class Viewer:
    """Looks at batches of images; every program is compiled once, and kept.

    Args:
      scene: what the images share.
      shape: (H, W, C).
      steps: of a draw of the model.
    """

    def __init__(self, scene: Scene, *, shape: tuple[int, ...], steps: int):
        self.scene = jax.device_put(scene)
        self._draw = shard_vmap(
            functools.partial(draw, shape=shape, steps=steps), shared=1
        )
        self._measure = shard_vmap(measure, shared=1)
        self._sample = shard_vmap(sample, shared=1)
        self._look = shard_vmap(look, shared=3)
        self._judge = shard_vmap(judge, shared=1)
        self._compiled: dict[Any, Any] = {}

    def __call__(
        self, batch: Batch, detectors: Mapping[str, Detector], judged: Container[str]
    ) -> Views:
        """Look at a batch; its size is a multiple of the number of devices.

        Args:
          batch: images, measurements, or keys to draw images with.
          detectors: by name.
          judged: names of those that are judged too, as they need no fit or had it.
        """
        scene, seconds = self.scene, 0.0
        count = len(batch.key)
        if batch.image is None and batch.y is None:
            image, seconds = self._timed(self._draw, scene, batch.key)
            batch = batch._replace(image=image)
        posterior, picture = None, {}
        misfit, bad = np.full(count, np.nan), np.full(count, -1)
        if scene.operator is None:
            picture["mean"] = batch.image
        else:
            if batch.y is None:
                y, took = self._timed(self._measure, scene, batch.key, batch.image)
                batch, seconds = batch._replace(y=y), seconds + took
            out, took = self._timed(self._sample, scene, batch.key, batch.y)
            (posterior, naive), seconds = out, seconds + took
            picture = {"mean": posterior.mean, "std": posterior.std, "naive": naive}
            misfit, bad = posterior.misfit, posterior.first_bad_step
            batch = batch._replace(image=None)
        seen = {
            name: self._see(name, detector, batch, posterior, name in judged)
            for name, detector in detectors.items()
        }
        picture, misfit, bad = jax.tree.map(np.asarray, (picture, misfit, bad))
        return Views(picture, misfit, bad, seconds / count, seen)

    def _see(self, name, detector, batch, posterior, judged) -> Seen:
        args = self.scene, detector, keys.words(name), batch, posterior
        looked, seconds = self._timed(self._look, *args)
        detection, extras = None, {}
        if judged:
            (detection, extras), took = self._timed(self._judge, detector, looked)
            seconds += took
        looked, detection, extras = jax.tree.map(
            np.asarray, (looked, detection, extras)
        )
        return Seen(looked, detection, extras, seconds / len(batch.key))

    def _timed(self, program, *args):
        """Run a program, compiled before its time is taken."""
        leaves, structure = jax.tree.flatten(args)
        shapes = tuple((np.shape(leaf), _dtype(leaf)) for leaf in leaves)
        key = program, structure, shapes
        if key not in self._compiled:
            self._compiled[key] = program.lower(*args).compile()
        start = time.perf_counter()
        out = jax.block_until_ready(self._compiled[key](*args))
        return out, time.perf_counter() - start


def _scan(scene: Scene, y) -> Scan:
    assert scene.noise_std is not None
    return Scan(scene.operator, y, scene.noise_std)


def _dtype(leaf) -> str:
    return str(getattr(leaf, "dtype", type(leaf).__name__))
