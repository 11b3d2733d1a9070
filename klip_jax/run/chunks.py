"""Chunk by chunk: what is missing in a store is looked at and written.

Several workers may share the store; each chunk is leased by one of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from klip_jax import progress
from klip_jax.run.inputs import Inputs
from klip_jax.run.lease import lease
from klip_jax.run.look import Viewer, Views, network_calls
from klip_jax.run.store import Store
from klip_jax.types import Detector

WAIT = 1.0  # seconds between two looks at what other workers have done


class Context(NamedTuple):
    """How a store is filled.

    Attributes:
      detectors: that look, by name.
      judged: names of those that are judged too.
      at_once: images at once on each device.
      minutes: of a lease.
      p_values: (detector, scores [n]) -> (under the model's law, conformal), [n] each.
      keep_looked: detectors whose looked-at pytrees are stored, to fit them later.
      progress: "" shows no bar, else its name.
    """

    detectors: Mapping[str, Detector]
    judged: frozenset[str]
    at_once: int
    minutes: float
    p_values: Callable[[str, np.ndarray], tuple[np.ndarray, np.ndarray]]
    keep_looked: frozenset[str] = frozenset()
    progress: str = ""


def unknown_p_values(name: str, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return NaN twice."""
    return np.full(len(scores), np.nan), np.full(len(scores), np.nan)


def missing(store: Store, total: int) -> list[int]:
    """Return the chunks that are not done."""
    return [c for c in range(-(-total // store.chunk_size)) if not store.is_done(c)]


def images_done(store: Store, total: int) -> int:
    """Return how many of `total` images are done."""
    size = store.chunk_size
    return total - sum(min(size, total - size * c) for c in missing(store, total))


def fill(store: Store, inputs: Inputs, viewer: Viewer, context: Context) -> None:
    """Look at every chunk that is not done, until all are, by us or by others."""
    total = len(inputs)
    shown = progress.bar(
        total=total,
        initial=images_done(store, total),
        unit="image",
        desc=context.progress,
        disable=not context.progress or not missing(store, total),
    )
    with shown:
        while todo := missing(store, total):
            worked = False
            for chunk in todo:
                if store.is_done(chunk):
                    continue
                with lease(store.folder, f"chunk-{chunk:05d}", context.minutes) as mine:
                    # Between the two questions another may have finished it.
                    if mine and not store.is_done(chunk):
                        _one(store, chunk, inputs, viewer, context, shown)
                        worked = True
            if not worked:
                time.sleep(WAIT)
                shown.n = images_done(store, total)
                shown.refresh()


def _one(store, chunk, inputs, viewer, context, shown):
    first, total = chunk * store.chunk_size, len(inputs)
    index = np.arange(first, min(first + store.chunk_size, total))
    at_once = context.at_once * jax.device_count()
    parts = []
    for start in range(0, len(index), at_once):
        some = index[start : start + at_once]
        # The last batch is filled up, so that every call has the compiled shape.
        filled = np.append(some, np.repeat(some[-1:], at_once - len(some)))
        views = viewer(inputs.read(filled), context.detectors, context.judged)
        parts.append(_cut(views, len(some)))
        shown.update(len(some))
    columns = [
        _rows(
            inputs, index, parts, name, network_calls(viewer.scene, detector), context
        )
        for name, detector in context.detectors.items()
    ]
    rows = {
        # An image's detectors stand together.
        column: np.stack([np.asarray(c[column]) for c in columns], 1).ravel()
        for column in columns[0]
    }
    store.write_chunk(chunk, rows, _arrays(parts, context), total)


def _cut(views: Views, count: int) -> Views:
    """Return what was seen of the first `count` images."""
    return jax.tree.map(lambda a: a[:count] if np.ndim(a) else a, views)


def _arrays(parts: Sequence[Views], context: Context) -> dict[str, np.ndarray]:
    """Return the arrays of a chunk by their names in the store."""
    pieces: dict[str, list[Any]] = {}
    for views in parts:
        named: dict[str, Any] = {
            f"reconstruction/{k}": v for k, v in views.picture.items()
        }
        for name, seen in views.seen.items():
            named |= {f"{name}/{k}": v for k, v in seen.extras.items()}
            if seen.detection is not None and seen.detection.heatmap is not None:
                named[f"{name}/heatmap"] = seen.detection.heatmap
            if name in context.keep_looked:
                leaves = enumerate(jax.tree.leaves(seen.looked))
                named |= {f"{name}/looked/{i}": leaf for i, leaf in leaves}
        for key, array in named.items():
            pieces.setdefault(key, []).append(array)
    return {key: np.concatenate(arrays) for key, arrays in pieces.items()}


def _is_finite(detection) -> np.ndarray:
    """Return of which images [n] score and map are finite."""
    finite = np.isfinite(detection.score)
    if detection.heatmap is not None:
        finite = finite & np.isfinite(detection.heatmap).all((1, 2))
    return finite


def _rows(inputs, index, parts, name, calls, context) -> Mapping[str, Any]:
    """Return the columns of one detector, a row an image."""
    count = len(index)
    seen = [views.seen[name] for views in parts]
    sizes = [len(views.misfit) for views in parts]
    score = stderr = np.full(count, np.nan)
    if seen[0].detection is not None:
        whole = np.concatenate([_is_finite(s.detection) for s in seen])
        score, stderr = (
            np.concatenate([np.float64(getattr(s.detection, field)) for s in seen])
            for field in ("score", "stderr")
        )
        # Whatever broke, score or map, is told by a score of NaN; the map stays.
        score, stderr = (np.where(whole, a, np.nan) for a in (score, stderr))
    p_value, p_conformal = context.p_values(name, score)
    return {
        "index": index,
        "image_id": [inputs.ids[i] for i in index],
        "group": [inputs.groups[i] for i in index],
        "patient": [inputs.patients[i] for i in index],
        "detector": [name] * count,
        "score": score,
        "stderr": stderr,
        "p_value": p_value,
        "p_conformal": p_conformal,
        "misfit": np.concatenate([np.float64(views.misfit) for views in parts]),
        "network_calls": [calls] * count,
        "seconds": np.repeat([s.seconds for s in seen], sizes),
        "posterior_seconds": np.repeat([views.seconds for views in parts], sizes),
        "first_bad_step": np.concatenate([v.first_bad_step for v in parts]),
    }
