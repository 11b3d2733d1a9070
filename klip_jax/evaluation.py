"""From the results of a run to metrics.json: our map and score beside every control.

Localization is scored inside eligible tissue united with the mask: in the whole body
any map that is bright in bodies gets a good number for nothing. A control wins where
its value exceeds ours. What cannot be computed is absent, and `left_out` says why.
"""

from collections.abc import Sequence

import numpy as np

from klip_jax import metrics
from klip_jax.results import ImageResult, map_controls, score_controls

TEMPLATE = "position_template"
FEW = 8


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
      `aupr`, `fpr95_ood_pos`, `fpr95_id_pos`, `pixel`, `counts`, `bad_images`,
      `left_out`: sentences.

    Raises:
      ValueError: if `block` does not divide an image.
    """
    good = [r for r in results if _is_good(r)]
    bad = [r.image_id for r in results if not _is_good(r)]
    known = [r for r in good if r.group]
    masked = [r for r in good if _mask(r).any()]
    left_out = []
    if bad:
        some = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        left_out.append(f"{len(bad)} images without a finite score and map: {some}.")
    found = {
        "counts": _counts(good, known, masked),
        "bad_images": len(bad),
        "block": block,
        "controls": {name: {} for name in _control_names(good)},
    }
    if masked:
        _add_localization(found, left_out, good, masked, block)
    else:
        left_out.append("Localization: no image has a mask of what is odd in it.")
    if len({r.group == "id" for r in known}) == 2:
        _add_detection(found, left_out, known)
    else:
        left_out.append(
            "Detection: it needs images known to be in-distribution (group id) and "
            "images known to be anomalous."
        )
    values = [metrics.psnr(r.arrays["truth"], r.arrays["mean"]) for r in _true(good)]
    if np.isfinite(values).any():
        statistic = metrics.mean_of(values)
        found["psnr"] = metrics.bootstrap(statistic, _clusters(_true(good)))
    else:
        left_out.append("PSNR: the true images are not known.")
    found["controls"] = {k: v for k, v in found["controls"].items() if v}
    found["control_wins"] = {
        question: [
            name
            for name, control in found["controls"].items()
            if control.get(f"difference_{question}", {"value": 0})["value"] < 0
        ]
        for question in ("localization", "detection")
    }
    return found | {"left_out": left_out}


def _add_localization(found, left_out, good, masked, block):
    region = _common_region(masked)
    found["localization_region"] = region
    if region != "eligible":
        where = {"body": "the body", "image": "the whole image"}[region]
        left_out.append(
            "Where an anomaly could have been is not known for every image: "
            f"localization is scored over {where}, which favours maps of anatomy."
        )
    maps = {"": [r.arrays["heatmap"] for r in masked]}
    maps |= _control_maps(found, left_out, good, masked)
    regions = {"localization_auroc": region}
    if region == "eligible" and all("body" in r.arrays for r in masked):
        regions["localization_auroc_body"] = "body"
    clusters = _clusters(masked)
    masks = [_mask(r) for r in masked]
    for key, region in regions.items():
        areas = [_region(r, region) for r in masked]
        statistics, values = {}, {}
        for name, heatmaps in maps.items():
            images = zip(heatmaps, masks, areas, strict=True)
            values[name] = [metrics.block_auroc(*image, block) for image in images]
            statistics[name] = metrics.mean_of(values[name])
        if not np.isfinite(values[""]).any():
            left_out.append(f"{key}: no image has blocks both with and without a mask.")
            continue
        _add(found, key, statistics, clusters)
        if key == "localization_auroc":
            groups = np.array([r.group for r in masked])
            _add_groups(found, key, groups, statistics[""], clusters, values[""])
    if len(set(clusters)) < FEW:
        left_out.append(
            f"Trust in the localization intervals: only {len(set(clusters))} images or "
            "patients have a mask."
        )
    _add_pixels(found, left_out, good)


def _add_detection(found, left_out, known):
    scores = {"": [r.score for r in known]}
    for name in found["controls"]:
        values = [score_controls(r).get(name, np.nan) for r in known]
        if np.isfinite(values).all():
            scores[name] = values
        elif np.isfinite(values).any():
            left_out.append(
                f"Detection by {name}: absent or not finite in some images."
            )
        else:
            left_out.append(f"Detection by {name}: this control has no image score.")
    groups = np.array([r.group for r in known])
    is_ood = groups != "id"
    statistics = {name: metrics.auroc_of(v, is_ood) for name, v in scores.items()}
    clusters = _clusters(known)
    _add(found, "detection_auroc", statistics, clusters)
    ours = np.array(scores[""])
    for group in sorted(set(groups[is_ood])):
        some = np.isin(groups, ["id", group])
        statistic = metrics.auroc_of(ours[some], is_ood[some])
        entry = found.setdefault("groups", {}).setdefault(group, {})
        entry["detection_auroc"] = metrics.bootstrap(statistic, clusters[some])
    for name in ("aupr", "fpr95_ood_pos", "fpr95_id_pos"):
        found[name] = getattr(metrics, name)(ours, is_ood)
    fewer = min(is_ood.sum(), (~is_ood).sum())
    if fewer < FEW:
        left_out.append(
            f"Trust in the detection intervals: one side has only {fewer} images."
        )
