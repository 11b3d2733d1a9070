"""What DiffGuard would have said with other labels, guidance or references.

A run leaves where the way up ended, and what came down without guidance; from there
other chains go down. So a bound that knows the right label, or guidance by the
classifier, costs its own chain only. Chunks are kept, and a killed one continues.
"""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax.detectors.base_inversion import Inverted
from klip_jax.detectors.diffguard import DiffGuard
from klip_jax.files import write_atomically
from klip_jax.types import Given

AT_ONCE = 2


class Left(NamedTuple):
    """What a run of DiffGuard left of N images.

    Attributes:
      pictures: [N, H, W, C] that it looked at.
      inverted, stop: where the way up ended.
      guided, unguided: what came down.
    """

    pictures: np.ndarray
    inverted: np.ndarray
    stop: np.ndarray
    guided: np.ndarray
    unguided: np.ndarray

    def take(self, index: np.ndarray) -> "Left":
        """Return it for some of the images."""
        return Left(*(array[index] for array in self))

    @classmethod
    def of(cls, store, name: str) -> "Left":
        """Read it from a store, by the detector's name there."""
        arrays = [f"{name}/{a}" for a in ("inverted", "stop", "guided", "unguided")]
        names = ["reconstruction/mean", *arrays]
        return cls(*(store.array(n)[:] for n in names))


def predicted(classifier: Any, pictures: np.ndarray) -> np.ndarray:
    """Return the classes [N] that a classifier sees."""
    return mapped(lambda x: classifier.predict(x), pictures)


def oracle_labels(labels: np.ndarray, seen: np.ndarray, *, classes: int) -> np.ndarray:
    """Return the right labels, and any but the one that is seen where none is right.

    Args:
      labels: [N], -1 where there is none.
      seen: [N] by the classifier.
      classes: how many there are.

    Reference: the protocol of DiffGuard's release.
    """
    rng = np.random.default_rng(0)
    other = (seen + rng.integers(1, classes, len(seen))) % classes
    return np.where(labels >= 0, labels, other)


def distances(
    detector: DiffGuard, classifier: Any, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Return the detector's distance of each two of the images [N]."""
    return mapped(lambda a, b: detector.compare(classifier, a, b), a, b)


def again(
    detector: DiffGuard,
    prior: Any,
    classifier: Any,
    left: Left,
    labels: np.ndarray,
    folder: Path,
) -> tuple[np.ndarray, float]:
    """Go down again from where the way up ended, toward other labels.

    Args:
      detector: of the same ladder as the one that went up.
      prior, classifier: its networks.
      left: by it.
      labels: [N] to guide to.
      folder: where chunks are kept.

    Returns:
      (guided images [N, H, W, C], seconds an image; NaN if all were there).
    """

    def one(prior, classifier, key, picture, latent, stop, label):
        given = Given(prior, image=picture, classifier=classifier)
        x = detector.encode(picture)
        aim = detector.guidance.aim
        target = aim(key, classifier, label, picture, (x.shape[0], x.shape[1]))
        up = Inverted(latent, stop.astype(jnp.int32))
        return detector.decode(detector.generate(given, up, target), picture)

    program = jax.jit(jax.vmap(one, (None, None, 0, 0, 0, 0, 0)))
    keys = jax.random.split(jax.random.key(0), len(labels))
    chunks, seconds, compiled = [], [], None
    for start in range(0, len(labels), AT_ONCE):
        path = folder / f"part-{start:05d}.npz"
        if not path.is_file():
            # The last chunk is filled up, so that all have the compiled shape.
            index = np.minimum(np.arange(start, start + AT_ONCE), len(labels) - 1)
            arrays = (
                keys[index],
                *(
                    jnp.asarray(a[index])
                    for a in (left.pictures, left.inverted, left.stop, labels)
                ),
            )
            if compiled is None:
                compiled = program.lower(prior, classifier, *arrays).compile()
            begun = time.perf_counter()
            guided = np.asarray(compiled(prior, classifier, *arrays))
            seconds.append((time.perf_counter() - begun) / AT_ONCE)
            buffer = io.BytesIO()
            np.savez(buffer, guided=guided, labels=labels[index])
            write_atomically(path, buffer.getvalue())
        with np.load(path) as saved:
            some = labels[start : start + AT_ONCE]
            if not np.array_equal(saved["labels"][: len(some)], some):
                raise ValueError(f"{path}: of other images; give another --workdir")
            chunks.append(saved["guided"][: len(some)])
    return np.concatenate(chunks), float(np.median(seconds or [np.nan]))


def mapped(f: Callable, *arrays: np.ndarray) -> Any:
    """Return f of each image, some at once; what it returns may be a pytree."""
    program, count = jax.jit(jax.vmap(f)), len(arrays[0])
    size = min(16, count)
    parts = []
    for start in range(0, count, size):
        # The last are filled up, so that all have the compiled shape.
        index = np.minimum(np.arange(start, start + size), count - 1)
        parts.append(program(*(jnp.asarray(a[index]) for a in arrays)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:count], *parts)
