"""All detectors on the images of a benchmark with a classifier, by ordinary runs.

    scores   what the classifier's logits say, and controls
    features KNN and ViM, fitted to training images
    priors   what the prior says without a classifier, fitted to fewer training images
    guided   DiffGuard and DiffNB
    y        from measurements: KLIP and those above that need no fit, of the posterior

What they leave in their workdirs is made into the rows of one table.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from klip_jax import hub
from klip_jax.config import build
from klip_jax.data.base import ImageSet
from klip_jax.run.detect import detect
from klip_jax.run.job import prepare
from klip_jax.run.law import references
from klip_jax.run.store import Store
from lab import class_benchmarks as benchmarks
from lab import class_detectors as known
from lab import regenerated, scores
from lab.runs import run_name

FOR_SCORES, FOR_PRIORS = 1000, 64  # training images, one half of them for fits


class Cost(NamedTuple):
    """What a detector costs an image; NaN seconds were not measured."""

    network_calls: float
    classifier_calls: float
    seconds: float


class Results(NamedTuple):
    """What all detectors yield on N images, by their names in the tables.

    Attributes:
      images: with what is known of them.
      values: scores [N].
      costs: an image.
      notes: what else is worth keeping.
    """

    images: ImageSet
    values: dict[str, np.ndarray]
    costs: dict[str, Cost]
    notes: dict[str, Any]


def everything(
    own: benchmarks.ClassBenchmark,
    tuned: Mapping[str, Any],
    folder: Path,
    *,
    few: int = 0,
) -> Results:
    """Run every detector on every image.

    Args:
      own: the benchmark.
      tuned: what guides, and which distance.
      folder: of the workdirs.
      few: images of each group and seed, 0 for its own number.
    """
    settings = benchmarks.settings(own, few=few)
    results = Results(build("data", settings["data"]), {}, {}, {})
    if own.operator is not None:
        chosen = known.klip() | known.SCORES | known.guided(tuned)
        chosen |= known.CONTROLS | known.SCANNED_CONTROLS
        store = _run(results, settings, chosen, folder / "y")
        calls = settings["posterior"]["samples"] * settings["posterior"]["steps"]
        columns = store.scores(["posterior_seconds", "misfit"])
        results.notes["posterior"] = dict(
            network_calls=calls,
            seconds=float(np.median(columns["posterior_seconds"])),
            misfit=float(np.mean(columns["misfit"])),
        )
        _derive(results, settings, tuned, store, folder)
        return results
    store = _run(results, settings, known.guided(tuned), folder / "guided")
    _run(results, settings, known.SCORES | known.CONTROLS, folder / "scores")
    fits = (
        ("features", known.FITTED_SCORES, FOR_SCORES),
        ("priors", known.PRIORS, FOR_PRIORS),
    )
    for name, chosen, count in fits:
        healthy = benchmarks.training_images(own, count)
        calibration = settings["calibration"] | dict(healthy=healthy)
        asked = settings | {"calibration": calibration}
        _run(results, asked, chosen, folder / name)
    _derive(results, settings, tuned, store, folder)
    return results


def rows(results: Results) -> scores.Table:
    """Return the rows of the table of scores."""
    return scores.joined(
        [
            scores.rows(results.images, name, calls(results.costs[name]), values)
            for name, values in results.values.items()
        ]
    )


def calls(cost: Cost) -> int:
    """Return the network calls of an image, rounded."""
    return round(cost.network_calls)


def _run(results, settings, chosen, folder) -> Store:
    """Run detectors of these names in the tables, and keep what they say."""
    detectors = {run_name(name): dict(own) for name, own in chosen.items()}
    asked = dict(settings) | {"detectors": detectors, "main": next(iter(detectors))}
    job = prepare(asked, folder)
    viewer = job.viewer()
    store = detect(job, references(job, viewer), viewer)
    columns = store.scores(["detector", "score", "network_calls", "seconds"])
    for name in chosen:
        mine = columns["detector"] == run_name(name)
        results.values[name] = columns["score"][mine]
        network = float(columns["network_calls"][mine][0])
        if f"{run_name(name)}/calls" in store.array_names():
            # Those of an image that stops early are fewer.
            network = float(np.mean(store.array(f"{run_name(name)}/calls")[:]))
        results.costs[name] = Cost(
            network,
            float(getattr(job.detectors[run_name(name)], "classifier_calls", 0)),
            float(np.median(columns["seconds"][mine])),
        )
    return store


def _derive(results, settings, tuned, store, folder):
    """Add what DiffGuard says with other labels, guidance and references."""
    prior, _ = hub.load(settings["prior"]["weights"])
    classifier, _ = hub.load_classifier(settings["classifier"]["weights"])
    detector = build("detectors", known.diffguard(tuned))
    left = regenerated.Left.of(store, run_name(known.OURS))
    references = dict(input=left.pictures, unguided=left.unguided)
    whole, chosen = results.costs[known.OURS], tuned["against"]
    up, down = float(np.mean(left.stop)) + 1, float(np.mean(left.stop)) + 1
    down += detector.ahead
    without = dict(input=0.0, unguided=down)  # calls of the reference
    costs = {}
    for against, reference in references.items():
        name = known.OURS if against == chosen else known.AGAINST.format(against)
        results.values[name] = regenerated.distances(
            detector, classifier, reference, left.guided
        )
        calls = up + 2 * down + without[against]
        seconds = whole.seconds * calls / whole.network_calls
        costs[name] = Cost(calls, float(detector.classifier_calls), seconds)
    results.costs.update(costs)

    seen = regenerated.predicted(classifier, left.pictures)
    labels = np.array(results.images.labels)
    known_ones = labels >= 0
    results.notes["accuracy"] = float(np.mean((seen == labels)[known_ones]))
    results.notes["stops"] = np.bincount(left.stop.astype(int)).tolist()
    if settings["scan"] is not None:
        return  # other chains are of the images themselves
    asked = regenerated.oracle_labels(labels, seen, classes=classifier.classes)
    some = np.flatnonzero(asked != seen)
    part = left.take(some)
    guided, _ = regenerated.again(
        detector, prior, classifier, part, asked[some], folder / "oracle"
    )
    values = results.values[known.OURS].copy()
    values[some] = regenerated.distances(
        detector, classifier, references[chosen][some], guided
    )
    results.values[known.ORACLE] = values
    results.costs[known.ORACLE] = costs[known.OURS]
    other = build("detectors", known.by_classifier(tuned))
    guided, seconds = regenerated.again(
        other, prior, classifier, left, seen, folder / "by_classifier"
    )
    results.values[known.BY_CLASSIFIER] = regenerated.distances(
        other, classifier, references[chosen], guided
    )
    rest = up + without[chosen]
    seconds += whole.seconds * rest / whole.network_calls
    results.costs[known.BY_CLASSIFIER] = Cost(
        rest + down, float(other.classifier_calls), seconds
    )
