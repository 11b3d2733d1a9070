"""Two questions, two names, asked of every detector of a run.

`localization`: inside one anomalous image, do the blocks with the anomaly rank above
the others. `detection`: between images, do the anomalous ones rank above the others.
Each enters AUROCs with intervals, paired differences from the main detector, and the
same by group of anomalies.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool

from klip_jax import bootstrap
from klip_jax.metrics import aupr, fpr95_id_pos, fpr95_ood_pos
from klip_jax.report.maps import TEMPLATE, Measured
from klip_jax.report.table import Table

QUESTIONS = ("localization", "detection")
REGIONS = {
    "eligible": "eligible tissue",
    "body": "the body",
    "image": "the whole image",
}
FEW = 8


def localization(
    metrics: dict[str, Any], left_out: list[str], table: Table, seen: Measured
) -> None:
    """Enter what the maps say into `metrics["detectors"]`, and why not into `left_out`.

    Args:
      metrics: those so far; gains `localization_region`.
      left_out: sentences so far.
      table, seen: of the run.
    """
    masked = seen.masked
    if not masked.any():
        left_out.append("Localization: no image has a mask of what is odd in it.")
        return
    main = seen.regions[0]
    if main != "eligible":
        left_out.append(
            "Localization in eligible tissue: not every image says where an anomaly "
            f"could have been, so it is scored in {REGIONS[main]}, which favours maps "
            "of anatomy."
        )
    clusters = table.clusters[masked]
    keys = ("localization_auroc", "localization_auroc_body")
    statistics = {}
    for key, region in zip(keys, seen.regions, strict=False):
        values = {name: v[masked] for name, v in seen.aurocs[region].items()}
        for name, value in _complete(values, key, left_out).items():
            statistics[name, key] = bootstrap.mean_of(value)
    _compare(metrics, statistics, clusters)
    if any(key == keys[0] for _, key in statistics):
        metrics["localization_region"] = main
    for group in _odd_groups(table, masked):
        some = table.groups[masked] == group
        values = {
            name: seen.aurocs[main][name][masked][some]
            for name, key in statistics
            if key == keys[0]
        }
        parts = {
            (name, keys[0]): bootstrap.mean_of(value)
            for name, value in values.items()
            if np.isfinite(value).any()
        }
        _of_group(metrics, group, parts, clusters[some])
    mapless = [n for n in table.detectors if n not in table.with_map()]
    left_out.extend(f"Localization by {name}: it has no map." for name in mapless)
    _warn_of_few(left_out, "localization", len(set(clusters)))


def detection(
    metrics: dict[str, Any],
    left_out: list[str],
    table: Table,
    usable: Bool[np.ndarray, " n"],
) -> None:
    """Enter what the scores say into `metrics["detectors"]`, or why not; see above."""
    sides = table.sides
    known = usable & ~sides["unknown"]
    is_ood = sides["ood"][known]
    if not is_ood.any() or is_ood.all():
        left_out.append(
            "Detection: it needs images known to be in-distribution (group id) and "
            "images known to be anomalous."
        )
        return
    scores = {}
    for name, values in table.scores.items():
        if np.isfinite(values[known]).all():
            scores[name] = values[known]
        else:
            left_out.append(f"Detection by {name}: not every image has its score.")
    if TEMPLATE in metrics["detectors"]:
        left_out.append(
            "Detection by the position template: it does not look at the image, so it "
            "has no score."
        )
    clusters, groups = table.clusters[known], table.groups[known]
    key = "detection_auroc"
    statistics = {(n, key): bootstrap.auroc_of(v, is_ood) for n, v in scores.items()}
    _compare(metrics, statistics, clusters)
    for group in _odd_groups(table, known):
        some = (groups == group) | ~is_ood
        statistics = {
            (n, key): bootstrap.auroc_of(v[some], is_ood[some])
            for n, v in scores.items()
        }
        _of_group(metrics, group, statistics, clusters[some])
    for name, values in scores.items():
        for metric in (aupr, fpr95_ood_pos, fpr95_id_pos):
            metrics["detectors"][name][metric.__name__] = metric(values, is_ood)
    few = min(len(set(clusters[is_ood])), len(set(clusters[~is_ood])))
    _warn_of_few(left_out, "detection", few)


def _complete(values, key, left_out):
    """Keep the detectors that have a value wherever an image can have one."""
    there = {name: np.isfinite(v) for name, v in values.items()}
    exists = np.any(list(there.values()), 0)
    if not exists.any():
        left_out.append(f"{key}: no image has blocks both with and without a mask.")
        return {}
    kept = {}
    for name, value in values.items():
        if there[name][exists].all() or (name == TEMPLATE and there[name].any()):
            kept[name] = value
        elif key == "localization_auroc":
            left_out.append(f"Localization by {name}: not every image has its map.")
    return kept


def _compare(metrics, statistics, clusters):
    """Enter statistics by (detector, key) and, of the others, main minus theirs."""
    if not statistics:
        return
    values = bootstrap.resampled(statistics, clusters)
    for (name, key), theirs in values.items():
        entry, main = metrics["detectors"][name], (metrics["main"], key)
        entry[key] = bootstrap.interval(theirs)
        question = key.removesuffix("_auroc")
        if question in QUESTIONS and name != metrics["main"] and main in values:
            difference = bootstrap.interval(values[main] - theirs)
            entry[f"difference_{question}"] = difference


def _of_group(metrics, group, statistics, clusters):
    if not statistics:
        return
    for (name, key), values in bootstrap.resampled(statistics, clusters).items():
        groups = metrics["detectors"][name].setdefault("groups", {})
        groups.setdefault(str(group), {})[key] = bootstrap.interval(values)


def _odd_groups(table, rows) -> list[str]:
    return sorted(set(table.groups[rows]) - {"", "id"})


def _warn_of_few(left_out, question, count):
    if count < FEW:
        left_out.append(
            f"Trust in the {question} intervals: they rest on only {count} images or "
            "patients of one kind."
        )
