"""The tab "How well it works here": what is known to be odd, against what was found."""

from typing import Any

import numpy as np

from klip_jax.calibration import ALARM, LAWS
from klip_jax.data.base import natural
from klip_jax.report import density, roc, text, verdict
from klip_jax.report.questions import QUESTIONS, REGIONS
from klip_jax.report.table import Table
from klip_jax.run.store import Store

_TITLES = {
    "localization": "Localization: where inside an image?",
    "detection": "Detection: which image?",
}
_PIXELS = {
    "auroc": "AUROC",
    "ap": "average precision",
    "prevalence": "prevalence of anomalous pixels",
    "aupro30": "AUPRO up to FPR 0.3",
    "aupro05": "AUPRO up to FPR 0.05",
    "dice_best": "best Dice, an oracle's threshold",
    "dice_fpr05_id": "Dice at 5 % of in-distribution pixels",
}


def of_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the page that the metrics alone fill."""
    said = [*verdict.alarms(metrics), verdict.misfit(metrics)]
    return {
        "main": text.name_of(metrics["main"]),
        "counted": _counted(metrics),
        "tiles": _tiles(metrics),
        "sentences": [sentence for sentence in said if sentence],
        "comparisons": _comparisons(metrics),
        "groups": _groups(metrics),
        "left_out": metrics["left_out"],
        "numbers": _numbers(metrics),
        "pixels": _pixels(metrics.get("pixel", {})),
    }


def curves(store: Store, table: Table, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the charts: ROC and scores by group, and densities over noise levels.

    Args:
      store, table, metrics: of the run.

    Returns:
      `roc`, {"chart", "scores", "curves"} or None; `densities`, a list of {"name",
      "sides", "charts"}.
    """
    drawn: dict[str, Any] = {"roc": None, "densities": []}
    if "detection_auroc" in metrics["detectors"][table.main]:
        usable = np.isfinite(table.scores[table.main])
        rocs = roc.read_roc(table, usable)
        drawn["roc"] = {
            "chart": roc.roc_chart(rocs),
            "scores": roc.scores_chart(table, usable),
            "curves": [
                {"name": text.name_of(c.name), "kind": c.kind, "area": c.area}
                for c in rocs
            ],
        }
    for name in density.density_detectors(table):
        densities = density.read_density(store, table, name)
        if densities:
            titles = list(table.detectors[name].get("curves", ()))
            sides = [
                {"kind": text.KINDS[side], "words": f"{text.SIDES[side]} ({d.count})"}
                for side, d in densities.items()
            ]
            charts = density.density_charts(densities, titles)
            drawn["densities"].append(
                {"name": text.name_of(name), "sides": sides, "charts": charts}
            )
    return drawn


def _counted(metrics) -> str:
    counts = metrics["counts"]
    parts = [f"{counts['images']} images"]
    parts += [f"{counts[k]} {word}" for k, word in text.SIDES.items() if counts[k]]
    parts += [f"{counts['patients']} patients"] if "patients" in counts else []
    parts += [f"{metrics['bad_images']} failed"] if metrics["bad_images"] else []
    return ", ".join(parts)


def _tiles(metrics) -> list[dict[str, str]]:
    main = metrics["detectors"][metrics["main"]]
    region = REGIONS.get(metrics.get("localization_region", ""), "")
    over = f"mean over images, blocks in {region}"
    tiles = [
        ("Localization AUROC", main.get("localization_auroc"), over, 2),
        (
            "Detection AUROC",
            main.get("detection_auroc"),
            "anomalous against in-distribution",
            2,
        ),
        ("Reconstruction, dB", metrics.get("psnr"), "PSNR, mean over images", 1),
    ]
    return [
        {"name": name, "note": note}
        | {key: text.number(values[key], places) for key in ("value", "low", "high")}
        for name, values, note, places in tiles
        if values
    ]


def _comparisons(metrics) -> list[dict[str, Any]]:
    """Return a table a question: the main detector, then the others by their value."""
    tables = []
    for question in QUESTIONS:
        key = f"{question}_auroc"
        entries = {n: e for n, e in metrics["detectors"].items() if key in e}
        if len(entries) < 2:
            continue
        body = f"{key}_body"
        order = sorted(
            entries, key=lambda n: (n != metrics["main"], -entries[n][key]["value"])
        )
        rows = [
            {
                "name": text.name_of(name),
                "control": entries[name]["control"],
                "kind": "ours"
                if name == metrics["main"]
                else "above"
                if name in metrics["wins"][question]
                else "",
                "auroc": entries[name][key],
                "difference": entries[name].get(f"difference_{question}"),
                "body": entries[name].get(body),
            }
            for name in order
        ]
        with_body = any(row["body"] for row in rows)
        title = _TITLES[question]
        tables.append({"title": title, "with_body": with_body, "rows": rows})
    return tables


def _groups(metrics) -> list[dict[str, Any]]:
    """Return a table a question, detectors by groups; one group is the headline."""
    entries, tables = metrics["detectors"], []
    names = {g for entry in entries.values() for g in entry.get("groups", {})}
    for question in QUESTIONS if len(names) > 1 else ():
        key, rows = f"{question}_auroc", []
        groups = sorted(names, key=natural)
        for name, entry in entries.items():
            values = [entry.get("groups", {}).get(g, {}).get(key) for g in groups]
            if any(values):
                # Of the others the value alone, so that the table can be read.
                write = text.interval if name == metrics["main"] else _value
                cells = [write(f) if f else "" for f in values]
                kind = "ours" if name == metrics["main"] else ""
                rows.append({"kind": kind, "cells": [text.name_of(name), *cells]})
        if rows:
            title = f"{question.capitalize()} AUROC"
            title += ", against id" if question == "detection" else ""
            tables.append({"title": title, "head": ["", *groups], "rows": rows})
    return tables


def _numbers(metrics) -> dict[str, Any]:
    """Return a table of further numbers of each detector; columns that say nothing go.

    FPR95 in both polarities, alarms by law and side, what it costs.
    """
    columns = {
        "AUPR": lambda e: _places(e.get("aupr"), 3),
        "ID flagged at 95 % OOD": lambda e: _places(e.get("fpr95_ood_pos"), 3),
        "OOD accepted at 95 % ID": lambda e: _places(e.get("fpr95_id_pos"), 3),
    }
    for law, words in LAWS.items():
        for side in ("id", "ood", "unknown"):
            name = {"id": "ID at ", "ood": "OOD at ", "unknown": "at "}[side]
            columns[f"{name}p \N{LESS-THAN OR EQUAL TO} {ALARM}, {words}"] = _share(
                law, side
            )
    columns["network calls"] = lambda e: str(e.get("network_calls", ""))
    # Few runs have a classifier.
    columns["classifier calls"] = lambda e: str(e.get("classifier_calls", 0) or "")
    columns["seconds"] = lambda e: _places(e.get("seconds"), 3)
    entries = metrics["detectors"]
    cells = {
        head: [write(entry) for entry in entries.values()]
        for head, write in columns.items()
    }
    cells = {head: column for head, column in cells.items() if any(column)}
    rows = [
        {
            "kind": "ours" if name == metrics["main"] else "",
            "cells": [text.name_of(name), *(column[i] for column in cells.values())],
        }
        for i, name in enumerate(entries)
    ]
    rows = [row for row in rows if any(row["cells"][1:])]
    return {"head": ["", *cells], "rows": rows}


def _share(law, side):
    def write(entry):
        counts = entry.get("alarms", {}).get(law, {}).get(side)
        return f"{counts[0]} / {counts[1]}" if counts else ""

    return write


def _pixels(pixel) -> dict[str, str]:
    where = REGIONS.get(pixel.get("region", ""), "")
    return {
        f"{name}, in {where}": f"{pixel[key]:.3f}"
        for key, name in _PIXELS.items()
        if key in pixel
    }


def _value(estimate) -> str:
    return text.number(estimate["value"])


def _places(value, places) -> str:
    return "" if value is None else text.number(value, places)
