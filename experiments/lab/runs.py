"""All detectors on the images of a benchmark, by the runs that any config starts.

One run with the scanner, one without it, whose detectors are given the true images.
What they leave in their workdirs is made into the rows of a table.
"""

import dataclasses
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.ndimage import gaussian_filter

from klip_jax import localization, pixels
from klip_jax.data.base import ImageSet
from klip_jax.files import write_atomically
from klip_jax.run.detect import detect
from klip_jax.run.job import prepare
from klip_jax.run.law import references
from klip_jax.run.store import Store
from klip_jax.scan import simulate
from lab import benchmarks, pictures, problems, scores
from lab import detectors as known
from lab.aurocs import image_scores
from lab.summary import best, statistics_of, values_of


@dataclasses.dataclass(frozen=True)
class Results:
    """What all detectors yield on N images, by their names in the tables.

    Attributes:
      images: with what is known of them.
      block: side of the blocks of the scores, pixels.
      maps: [N, H, W] of those that have one.
      scores: [N].
      p_values: [N] by the law of the model's draws, NaN where there is none.
      calls: network calls an image, those of the posterior samples where it sees them.
    """

    images: ImageSet
    block: int
    maps: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    scores: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    p_values: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    calls: dict[str, int] = dataclasses.field(default_factory=dict)


def everything(
    settings: dict[str, Any],
    folder: Path,
    *,
    healthy: int = 64,
    only: tuple[str, ...] = (),
    released: bool = True,
    finer: bool = False,
) -> Results:
    """Run every detector on every image.

    Args:
      settings: of a config, as plain data.
      folder: of the workdirs.
      healthy: training images; the first half is what detectors are fitted on.
      only: run only detectors whose names in the tables start with one of these.
      released: KLIP as released too.
      finer: measure on a finer grid than is inverted; see `benchmarks.finer`.
    """
    images = problems.images(settings)
    train = {k: v for k, v in settings["train"]["data"].items() if k != "measurements"}
    fit = settings["calibration"] | dict(
        draws=0, healthy=train | {"per_group": healthy}
    )
    settings = settings | {"calibration": fit}
    of_scan = _chosen(known.of_scan(settings, released=released), only)
    of_image = _chosen(known.of_image(), only)
    results = Results(images, settings["detectors"][settings["main"]]["block"])
    if of_scan:
        scanned = dict(settings)
        if finer:
            scanned["data"] = _measured(scanned, images, folder, benchmarks.finer)
        _add(results, run(scanned, of_scan, folder / "y"), of_scan)
        _add_derived(results, folder / "y", settings)
    if of_image:
        looked_at = settings | {"scan": None}
        _add(results, run(looked_at, of_image, folder / "x"), of_image)
    return results


def run(settings: Mapping[str, Any], chosen: known.Chosen, folder: Path) -> Store:
    """Run detectors of these names in the tables; returns what they left."""
    detectors = {run_name(name): own for name, own in chosen.items()}
    asked = dict(settings) | {"detectors": detectors, "main": next(iter(detectors))}
    job = prepare(asked, folder)
    viewer = job.viewer()
    return detect(job, references(job, viewer), viewer)


def smoothed(results: Results, tuned: Mapping[str, float]) -> Results:
    """Add every detector whose map is better smoothed, under a name that says so.

    Args:
      results: of `everything`.
      tuned: {detector: standard deviation of the Gaussian, pixels}.
    """
    for name, std in tuned.items():
        if std and name in results.maps:  # a benchmark may leave detectors out
            new = f"{name}, smoothed {std:g}"
            results.maps[new] = smooth(results.maps[name], std)
            results.scores[new] = image_scores(results.maps[new], block=results.block)
            results.calls[new] = results.calls[name]
    return results


def smooth(maps, std: float) -> np.ndarray:
    """Filter maps [N, H, W] with a Gaussian, pixels; 0 leaves them as they are."""
    return gaussian_filter(np.asarray(maps, np.float32), (0, std, std))


def table(results: Results) -> scores.Table:
    """Return the rows of the table of scores."""
    return scores.joined(
        [
            scores.rows(
                results.images,
                name,
                results.calls[name],
                values,
                heatmaps=results.maps.get(name),
                p_values=results.p_values.get(name),
                block=results.block,
            )
            for name, values in results.scores.items()
        ]
    )


def by_pixel(results: Results) -> dict[str, dict[str, float]]:
    """Return {detector: pooled pixel metrics}, {} without masks."""
    images = results.images
    if images.masks is None:
        return {}
    seen = images.masks, images.eligible | images.masks
    is_id = np.array(images.groups) == "id"
    return {
        name: pixels.pixel_metrics(maps, *seen, is_id)
        for name, maps in results.maps.items()
    }


def side_by_side(results: Results, rows: scores.Table, most: int = 2) -> bytes:
    """Return the picture of the best maps on the first images of each group."""
    images = results.images
    question = "localization" if images.masks is not None else "detection"
    ranked = best(values_of(statistics_of(rows), len(images)), question)
    maps = {name: results.maps[name] for name in ranked if name in results.maps}
    groups = np.array(images.groups)
    first = [np.flatnonzero(groups == g)[:most] for g in dict.fromkeys(images.groups)]
    some = dict(list(maps.items())[:8])
    return pictures.side_by_side(images, some, np.concatenate(first))


def _chosen(detectors: known.Chosen, only: tuple[str, ...]) -> known.Chosen:
    return {k: v for k, v in detectors.items() if not only or k.startswith(only)}


def run_name(name: str) -> str:
    """Return a name that a run accepts: letters, digits, "_" and "-"."""
    name = name.replace("x^", "xhat")
    return re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_")


def _add(results: Results, store: Store, chosen: known.Chosen) -> None:
    columns = store.scores(["detector", "score", "p_value", "network_calls"])
    arrays = set(store.array_names())
    for name in chosen:
        own = run_name(name)
        mine = columns["detector"] == own
        results.scores[name] = columns["score"][mine]
        results.p_values[name] = columns["p_value"][mine]
        calls = int(columns["network_calls"][mine][0])
        shared = store.meta["posterior_calls"] if known.sees_samples(name) else 0
        results.calls[name] = calls + shared
        if f"{own}/heatmap" in arrays:
            results.maps[name] = store.array(f"{own}/heatmap")[:]


def _add_derived(results: Results, folder: Path, settings: Mapping[str, Any]) -> None:
    """Add what follows from others' maps, without looking again."""
    if known.GUIDED in results.maps:
        columns = Store(folder).scores(["detector", "misfit"])
        misfit = columns["misfit"][columns["detector"] == run_name(known.GUIDED)]
        size = np.prod(problems.setup(settings).operator.out_shape)
        nats = results.maps[known.GUIDED].sum((1, 2))
        _derive(results, known.MISFIT, known.GUIDED, nats + misfit * size / 2)
    if known.PADIS_MAP in results.maps:
        maps = results.maps[known.PADIS_MAP]
        _derive(results, known.PADIS, known.PADIS_MAP, maps.max((1, 2)), maps)
    if known.OURS in results.maps and results.images.masks is not None:
        is_id = np.array(results.images.groups) == "id"
        template = localization.position_template(results.maps[known.OURS], is_id)
        # It has not seen the image.
        _derive(results, known.TEMPLATE, known.OURS, np.zeros(len(is_id)), template)


def _derive(results, name, source, values, maps=None):
    results.scores[name], results.calls[name] = values, results.calls[source]
    if maps is not None:
        results.maps[name] = maps


def _measured(
    settings: Mapping[str, Any], images: ImageSet, folder: Path, other: Callable
) -> dict[str, Any]:
    """Measure the images by another scanner; returns data of a config."""
    own = problems.setup(settings)
    scanner = other(own.operator)
    measure = jax.jit(lambda key, x: simulate(key, scanner, x, own.noise_std).y)
    keys = jax.random.split(jax.random.key(settings["seed"]), len(images))
    y = [measure(key, x) for key, x in zip(keys, images.images, strict=True)]
    buffer = io.BytesIO()
    np.savez(buffer, y=np.stack(y), ids=np.array(images.ids))
    path = folder / "measurements.npz"
    write_atomically(path, buffer.getvalue())
    return dict(measurements=str(path))
