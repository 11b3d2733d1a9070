"""From the results of a run to metrics.json: our map and score beside every control.

Localization is asked inside eligible tissue united with the mask: in the whole body any
map that is bright in bodies gets a good number for nothing. A control wins where its
value exceeds ours. What cannot be computed is absent, and `left_out` says why.
"""

from collections.abc import Sequence

import numpy as np

from klip_jax import diagnosis, metrics
from klip_jax.results import ImageResult, map_controls, score_controls

TEMPLATE = "position_template"
FEW = 8

_OURS = ""
_REGIONS = {"eligible": "eligible tissue", "body": "the body", "image": "the image"}


def evaluate(results: Sequence[ImageResult], block: int) -> dict:
    """Return all metrics of a run as plain numbers, none of them NaN.

    Args:
      results: what `results.read_images` gives; "id" is the in-distribution group.
      block: side of the blocks of the localization AUROC, pixels.

    Returns:
      `localization_auroc`, `localization_auroc_body`, `detection_auroc`, `psnr`: each
      {"value", "low", "high"}, 95 % bootstrap over patients where known, else images;
      `controls`: the same by name, with `difference_localization` and
      `difference_detection`, ours minus theirs on the same resamples; `control_wins`:
      names by question; `groups`: the same two of each anomalous group against "id";
      `misfit`: see `diagnosis`; `aupr`, `fpr95_ood_pos`, `fpr95_id_pos`, `pixel`,
      `counts`, `bad_images`, `left_out`: sentences.

    Raises:
      ValueError: if `block` does not divide an image.
    """
    good = [r for r in results if _is_good(r)]
    bad = [r.image_id for r in results if not _is_good(r)]
    found = {"block": block, "bad_images": len(bad), "counts": _counts(good)}
    found["controls"] = {name: {} for name in _control_names(good)}
    left_out = []
    if bad:
        some = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        left_out.append(f"{len(bad)} images without a finite score and map: {some}.")
    _localization(found, left_out, good)
    _pixels(found, left_out, good)
    _detection(found, left_out, [r for r in good if r.group])
    _psnr(found, left_out, [r for r in good if "truth" in r.arrays])
    if misfit := diagnosis.misfit(good):
        found["misfit"] = misfit
    found["controls"] = {name: c for name, c in found["controls"].items() if c}
    found["control_wins"] = {
        question: [
            name
            for name, control in found["controls"].items()
            if control.get(f"difference_{question}", {"value": 0})["value"] < 0
        ]
        for question in ("localization", "detection")
    }
    return found | {"left_out": left_out}


def _localization(found, left_out, good):
    masked = [r for r in good if _mask(r).any()]
    if not masked:
        left_out.append("Localization: no image has a mask of what is odd in it.")
        return
    main = _common_region(masked)
    regions = {"localization_auroc": main}
    if main == "eligible" and all("body" in r.arrays for r in masked):
        regions["localization_auroc_body"] = "body"
    if main != "eligible":
        left_out.append(
            "Localization in eligible tissue: not every image says where an anomaly "
            f"could have been, so it is scored in {_REGIONS[main]}, which favours maps "
            "of anatomy."
        )
    maps = {_OURS: [r.arrays["heatmap"] for r in masked]}
    for name in found["controls"]:
        if name == TEMPLATE:
            maps[name] = _template(good, masked)
        elif all(name in map_controls(r) for r in masked):
            maps[name] = [map_controls(r)[name] for r in masked]
        else:
            left_out.append(f"Localization by {name}: not every image has its map.")
    clusters, groups = _clusters(masked), np.array([r.group for r in masked])
    for key, region in regions.items():
        areas = [_region(r, region) for r in masked]
        values = {}
        for name, heatmaps in maps.items():
            images = zip(heatmaps, map(_mask, masked), areas, strict=True)
            scored = [metrics.block_auroc(*image, found["block"]) for image in images]
            values[name] = np.array(scored)
        if not np.isfinite(values[_OURS]).any():
            left_out.append(f"{key}: no image has blocks both with and without a mask.")
            continue
        statistics = {name: metrics.mean_of(v) for name, v in values.items()}
        _compare(found, key, statistics, clusters)
        if key != "localization_auroc":
            continue
        found["localization_region"] = region
        for group in sorted(set(groups) - {"", "id"}):
            some = groups == group
            if np.isfinite(values[_OURS][some]).any():
                entry = found.setdefault("groups", {}).setdefault(str(group), {})
                statistic = metrics.mean_of(values[_OURS][some])
                entry[key] = metrics.bootstrap(statistic, clusters[some])
    _warn_of_few(left_out, "localization", len(set(clusters)))


def _pixels(found, left_out, good):
    """Pool the pixels of all images of which it is known where they are odd."""
    known = [r for r in good if "mask" in r.arrays or r.group == "id"]
    if not known or not any(_mask(r).any() for r in known):
        return
    region = _common_region(known)
    columns = [(r.arrays["heatmap"], _mask(r), _region(r, region)) for r in known]
    is_id = [r.group == "id" for r in known]
    try:
        pixel = metrics.pixel_metrics(*zip(*columns, strict=True), is_id)
    except ValueError as error:
        left_out.append(f"Pixel metrics: {error}.")
    else:
        found["pixel"] = {"region": region, **pixel}


def _detection(found, left_out, known):
    groups = np.array([r.group for r in known])
    is_ood = groups != "id"
    if not is_ood.any() or is_ood.all():
        left_out.append(
            "Detection: it needs images known to be in-distribution (group id) and "
            "images known to be anomalous."
        )
        return
    scores = {_OURS: np.array([r.score for r in known])}
    for name in found["controls"]:
        if name == TEMPLATE:
            continue
        values = np.array([score_controls(r).get(name, np.nan) for r in known])
        if np.isfinite(values).all():
            scores[name] = values
        else:
            left_out.append(f"Detection by {name}: not every image has its score.")
    if TEMPLATE in found["controls"]:
        left_out.append(
            "Detection by the position template: it does not look at the image, so it "
            "has no score."
        )
    clusters = _clusters(known)
    statistics = {name: metrics.auroc_of(v, is_ood) for name, v in scores.items()}
    _compare(found, "detection_auroc", statistics, clusters)
    for group in sorted(set(groups) - {"id"}):
        some = (groups == group) | ~is_ood
        statistic = metrics.auroc_of(scores[_OURS][some], is_ood[some])
        entry = found.setdefault("groups", {}).setdefault(str(group), {})
        entry["detection_auroc"] = metrics.bootstrap(statistic, clusters[some])
    for name in ("aupr", "fpr95_ood_pos", "fpr95_id_pos"):
        found[name] = getattr(metrics, name)(scores[_OURS], is_ood)
    few = min(len(set(clusters[is_ood])), len(set(clusters[~is_ood])))
    _warn_of_few(left_out, "detection", few)


def _psnr(found, left_out, known):
    values = [metrics.psnr(r.arrays["truth"], r.arrays["mean"]) for r in known]
    if np.isfinite(values).any():
        found["psnr"] = metrics.bootstrap(metrics.mean_of(values), _clusters(known))
    else:
        left_out.append("PSNR: the true images are not known.")


def _compare(found, key, statistics, clusters):
    """Enter our statistic, those of the controls and the paired differences."""
    ours = statistics.pop(_OURS)
    found[key] = metrics.bootstrap(ours, clusters)
    for name, theirs in statistics.items():
        control = found["controls"][name]
        control[key] = metrics.bootstrap(theirs, clusters)
        if not key.endswith("_body"):
            difference = metrics.paired_difference(ours, theirs, clusters)
            control[f"difference_{key.removesuffix('_auroc')}"] = difference


def _warn_of_few(left_out, question, count):
    if count < FEW:
        left_out.append(
            f"Trust in the {question} intervals: they rest on only {count} images or "
            "patients of one kind."
        )


def _control_names(good):
    names = {}  # a dict keeps the order of appearance
    shapes = {r.arrays["heatmap"].shape for r in good}
    if len(shapes) == 1 and any(r.group == "id" for r in good):
        names[TEMPLATE] = None
    for r in good:
        names |= dict.fromkeys([*map_controls(r), *score_controls(r)])
    return list(names)


def _template(good, masked):
    heatmaps = np.stack([r.arrays["heatmap"] for r in good])
    maps = metrics.position_template(heatmaps, [r.group == "id" for r in good])
    by_id = dict(zip([r.image_id for r in good], maps, strict=True))
    return [by_id[r.image_id] for r in masked]


def _counts(good):
    groups = [r.group for r in good]
    counts = {
        "images": len(good),
        "id": groups.count("id"),
        "ood": sum(g not in ("", "id") for g in groups),
        "unknown": groups.count(""),
        "with_mask": sum(bool(_mask(r).any()) for r in good),
    }
    patients = {str(r.arrays["patient"]) for r in good if "patient" in r.arrays}
    return counts | ({"patients": len(patients)} if patients else {})


def _is_good(result):
    return bool(
        np.isfinite(result.score) and np.isfinite(result.arrays["heatmap"]).all()
    )


def _mask(result):
    heatmap = result.arrays["heatmap"]
    return np.asarray(result.arrays.get("mask", np.zeros(heatmap.shape)), bool)


def _common_region(results):
    """Return the narrowest region that is known of every image."""
    for name in ("eligible", "body"):
        if all(name in r.arrays for r in results):
            return name
    return "image"


def _region(result, name):
    if name == "image":
        return np.ones(result.arrays["heatmap"].shape, bool)
    return np.asarray(result.arrays[name], bool) | _mask(result)


def _clusters(results):
    labels = []
    for r in results:
        patient = str(r.arrays.get("patient", ""))
        labels.append(f"patient {patient}" if patient else f"image {r.image_id}")
    return np.array(labels)
