"""What `supervised_bound.py` learns from: linear reconstructions and their masks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.config import build
from klip_jax.data.augment import Augment, augment
from klip_jax.data.base import ImageSet, Source
from klip_jax.phantoms import simulated
from klip_jax.phantoms.anomalies import draw
from klip_jax.phantoms.base_simulated import DEFAULT, Kind, tissue
from klip_jax.scan import conditional_shift, simulate
from klip_jax.types import LinearOperator
from lab import problems

SPREAD = 0.1  # of the white prior that the reconstruction assumes
AUGMENT = Augment(shift=3.0, stretch=0.1, mirror=0.5, contrast=0.05, brightness=0.02)


class Task(NamedTuple):
    """A scanner, images to learn from and images to watch.

    Attributes:
      operator, noise_std: the scanner.
      source: its `draw` gives (reconstruction [H, W, 1], mask [H, W]).
      tuning: with masks and eligible tissue.
      weights: name of the prior to start from.
    """

    operator: LinearOperator
    noise_std: float
    source: Source
    tuning: ImageSet
    weights: str


def task(name: str, per_group: int, seed: int) -> Task:
    """Return the task of `problems.PROBLEMS[name]`, with so many tuning images."""
    settings = problems.settings(name)
    # Of patients that it has not learned, whatever settings are chosen on.
    tuning = problems.tuning_images(name, per_group, seed, part=problems.HELD_OUT)
    _, operator, noise_std = problems.setup(settings).scanner
    stream = phantoms() if name == "phantoms" else real_images(name, settings)

    def example(arrays, key):
        inner, operator = arrays
        key, key_noise = jax.random.split(key)
        image, mask = stream.draw(inner, key)
        return reconstruction(operator, noise_std, key_noise, image), mask

    source = Source(example, (stream.arrays, operator))
    return Task(operator, noise_std, source, tuning, settings["prior"]["weights"])


def phantoms() -> Source:
    """Phantoms with lesions of the test's law; one in four has none."""

    def example(arrays, key):
        del arrays
        key_kind, key_anatomy = jax.random.split(key)
        # Both kinds are views of one anatomy, which XLA draws once.
        kinds = [draw(key_anatomy, kind) for kind in ("id", "lesion")]
        sick = jax.random.bernoulli(key_kind, 0.75)
        found = jax.tree.map(lambda *pair: jnp.where(sick, pair[1], pair[0]), *kinds)
        return found.image, found.mask

    return Source(example)


def real_images(name: str, settings: dict[str, Any]) -> Source:
    """Training images with anomalies simulated there, or with their own.

    The train split but its last tenth, augmented; every kind of the tuning images is as
    frequent as none. Where the file holds images with masks of real anomalies, of the
    same patients, they are as frequent as all others together.
    """
    data = settings["train"]["data"] | {"part": (0.0, problems.HELD_OUT[0])}
    tuning = problems.PROBLEMS[name].tuning
    known = build("data", data | {"oval": tuning.get("oval", ())})
    everywhere = np.ones(known.images.shape[:3], bool)
    own = everywhere if known.eligible is None else known.eligible
    look = Kind(radius=tuning.get("radius", DEFAULT.radius))
    kinds: list[Callable] = [_healthy]
    for kind in tuning["groups"]:
        kinds.append(lambda *given, kind=kind: simulated.KINDS[kind](*given, look))
    sick = _with_real(data, known.patients)

    def example(arrays, key):
        healthy, own, sick = arrays
        keys = jax.random.split(key, 5)
        at = jax.random.randint(keys[0], (), 0, len(healthy))
        image = augment(keys[1], healthy[at], AUGMENT)
        eligible = tissue(image, tuning["greys"]) & own[at]
        kind = jax.random.randint(keys[2], (), 0, len(kinds))
        found = jax.lax.switch(kind, kinds, keys[3], image, eligible)
        if sick is None:
            return found
        real = jax.random.bernoulli(keys[4])
        drawn = _moved(jax.random.fold_in(key, 1), *sick)
        return jax.tree.map(lambda a, b: jnp.where(real, a, b), drawn, found)

    return Source(example, jax.tree.map(jnp.asarray, (known.images, own, sick)))


def reconstruction(
    operator: LinearOperator, noise_std: float, key: Array, x: Array
) -> Array:
    """Measure x and return its mean under a white Gaussian prior [H, W, 1]."""
    scan = simulate(key, operator, x, noise_std)
    start = jnp.full_like(x, 0.5)
    return start + conditional_shift(scan, start, jnp.float32(SPREAD**2))


def _healthy(key, image, eligible):
    del key
    return image, jnp.zeros_like(eligible)


def _with_real(data, patients):
    """Return (images, masks) with a real anomaly of these patients, None if none."""
    if "healthy" not in data:
        return None
    every = build("data", data | {"healthy": "", "part": (0.0, 1.0)})
    train = set(patients)
    keep = np.array([patient in train for patient in every.patients])
    keep &= every.masks.any((1, 2))
    return every.images[keep], every.masks[keep]


def _moved(key, images, masks):
    """Draw one image and its mask, augmented alike."""
    key, key_at = jax.random.split(key)
    at = jax.random.randint(key_at, (), 0, len(images))
    in_place = AUGMENT._replace(contrast=0.0, brightness=0.0)
    mask = augment(key, masks[at].astype(jnp.float32)[..., None], in_place)
    return augment(key, images[at], AUGMENT), mask[..., 0] > 0.5
