"""From the results of a run to metrics.json: the main detector beside every other.

Localization is asked inside eligible tissue united with the mask: in the whole body any
map that is bright in bodies gets a good number for nothing. Another detector wins where
its value exceeds the main one's. What cannot be computed is absent, and `left_out` says
why.
"""

from typing import Any

import numpy as np

from klip_jax import bootstrap, calibration
from klip_jax.calibration import ALARM
from klip_jax.data.base import ImageSet
from klip_jax.pixels import pixel_metrics
from klip_jax.report import laws
from klip_jax.report.maps import TEMPLATE, Measured, measure, read_normal
from klip_jax.report.questions import QUESTIONS, detection, localization
from klip_jax.report.table import Table, read_table
from klip_jax.run.store import Store


def evaluate(
    store: Store, images: ImageSet | None, absent: str = "the data are not at hand"
) -> dict[str, Any]:
    """Return all metrics of a run as plain numbers, none of them NaN.

    Args:
      store: of the run.
      images: the data that it looked at; None without.
      absent: why there are none.

    Returns:
      `main`, `block`, `counts`, `bad_images`, `left_out` (sentences); `detectors`: by
      name, the main one first, then by their detection AUROC, else as in the config:
      `control`, `localization_auroc`, `localization_auroc_body`, `detection_auroc`,
      each {"value", "low", "high"}, 95 % bootstrap over patients where known, else
      images; `difference_localization` and `difference_detection`, the main detector
      minus this one on the same resamples; `groups`: the same AUROCs of each anomalous
      group against "id"; `aupr`, `fpr95_ood_pos`, `fpr95_id_pos`; `alarms`: how many of
      how many have p <= 0.05, by law and side; `law`: the one that counts, `laws`: what
      each says, see `laws.of_detector`; `network_calls`, `classifier_calls`, `seconds`.
      `needs_look`: {"count", "of", "alpha", "law"} of the main detector. `wins`: by
      question, who is above the main detector; `localization_region`; `misfit`: median,
      5 and 95 % quantile; `psnr`; `pixel`: of the main detector.

    Raises:
      ValueError: if the block of the main detector does not divide an image, or the
        store is broken.
    """
    table = read_table(store)
    normal = read_normal(store, table)
    block = int(table.detectors[table.main]["block"])
    seen = None
    if images is not None:
        seen = measure(store, table, normal, images, block)
    left_out: list[str] = []
    metrics: dict[str, Any] = {
        "main": table.main,
        "block": block,
        "counts": _counts(table, normal.usable, seen),
        "bad_images": int((~normal.usable).sum()),
        "detectors": _detectors(table, normal, store.meta.get("laws", {})),
    }
    if look := laws.needs_look(table):
        metrics["needs_look"] = look
    if not normal.usable.all():
        bad = table.ids[~normal.usable]
        some = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        left_out.append(f"{len(bad)} images without a finite score and map: {some}.")
    if seen is None:
        left_out.append(f"Localization and PSNR: {absent}.")
    else:
        localization(metrics, left_out, table, seen)
        _pixels(metrics, left_out, seen)
        _psnr(metrics, left_out, table, seen.psnr, normal.usable)
    detection(metrics, left_out, table, normal.usable)
    metrics["detectors"] = _in_order(metrics["detectors"], table.main)
    if (misfit := table.misfit[normal.usable & np.isfinite(table.misfit)]).size:
        low, value, high = np.quantile(misfit, [0.05, 0.5, 0.95])
        metrics["misfit"] = dict(value=float(value), low=float(low), high=float(high))
    metrics["wins"] = {
        question: [
            name
            for name, entry in metrics["detectors"].items()
            if entry.get(f"difference_{question}", {"value": 0})["value"] < 0
        ]
        for question in QUESTIONS
    }
    return metrics | {"left_out": left_out}


def _in_order(entries, main) -> dict[str, dict[str, Any]]:
    """Put the main detector first, then by detection AUROC, then those without one."""

    def rank(name):
        auroc = entries[name].get("detection_auroc", {"value": -1})["value"]
        return name != main, -auroc

    return {name: entries[name] for name in sorted(entries, key=rank)}


def _detectors(table, normal, sizes) -> dict[str, dict[str, Any]]:
    """Start the entry of each detector: what needs no truth."""
    entries: dict[str, dict[str, Any]] = {}
    for name, about in table.detectors.items():
        columns = table.columns[name]
        entries[name] = {
            "control": bool(about["control"]),
            "network_calls": int(about["network_calls"]),
            "classifier_calls": int(about.get("classifier_calls", 0)),
        }
        seconds = columns["seconds"]
        if (seconds := seconds[np.isfinite(seconds)]).size:
            entries[name]["seconds"] = float(seconds.mean())
        if alarms := _alarms(table, columns):
            entries[name]["alarms"] = alarms
            entries[name]["law"] = calibration.first_law(columns)
            entries[name]["laws"] = laws.of_detector(table, name, sizes)
    if normal.total is not None:
        entries[TEMPLATE] = {"control": True}
    return entries


def _alarms(table, columns) -> dict[str, dict[str, list[int]]]:
    """Count [p <= 0.05, finite p] by law and side; NaN is never an alarm."""
    alarms: dict[str, dict[str, list[int]]] = {}
    for law in calibration.LAWS:
        for side, own in table.sides.items():
            p = columns[law][own & np.isfinite(columns[law])]
            if p.size:
                counts = [int((p <= ALARM).sum()), p.size]
                alarms.setdefault(law, {})[side] = counts
    return alarms


def _pixels(metrics, left_out, seen: Measured) -> None:
    """Pool the pixels of the images of which it is known where they are odd."""
    heatmaps, masks, regions, is_id = seen.pooled
    if not any(mask.any() for mask in masks):
        return
    try:
        pixel = pixel_metrics(heatmaps, masks, regions, is_id)
    except ValueError as error:
        left_out.append(f"Pixel metrics: {error}.")
        return
    metrics["pixel"] = {"region": seen.regions[0], **pixel}
    if seen.pooled_share < 1:
        left_out.append(
            f"Pixel metrics: they rest on {len(heatmaps)} images drawn by lot, "
            f"{100 * seen.pooled_share:.2g} % of all, so that they fit in memory."
        )


def _psnr(metrics, left_out, table: Table, psnr, usable) -> None:
    known = usable & np.isfinite(psnr)
    if known.any():
        statistic = bootstrap.mean_of(psnr[usable])
        metrics["psnr"] = bootstrap.bootstrap(statistic, table.clusters[usable])
    else:
        left_out.append("PSNR: true images and reconstructions are not both known.")


def _counts(table: Table, usable, seen: Measured | None) -> dict[str, int]:
    counts = {"images": int(usable.sum())}
    counts |= {name: int((side & usable).sum()) for name, side in table.sides.items()}
    counts["with_mask"] = int(seen.masked.sum()) if seen else 0
    patients = set(table.patients[usable]) - {""}
    return counts | ({"patients": len(patients)} if patients else {})
