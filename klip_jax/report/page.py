"""The page of a run: what its template shows, from metrics and scores.

The page needs no network and no script: style and pictures are inside it, its security
policy forbids everything else, and the template escapes every text.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np

from klip_jax.data.base import natural
from klip_jax.report import text, verdict
from klip_jax.report.questions import QUESTIONS, REGIONS
from klip_jax.report.table import Table

LISTED = 1000
"""Images in the table of scores; scores.csv has all."""

_TITLES = {
    "localization": "Localization: where inside an image?",
    "detection": "Detection: which image?",
}
_MAIN, _OTHER = "#c0392b", "#8793a0"
_PIXELS = {
    "auroc": "AUROC",
    "ap": "average precision",
    "prevalence": "prevalence of anomalous pixels",
    "aupro30": "AUPRO up to FPR 0.3",
    "aupro05": "AUPRO up to FPR 0.05",
    "dice_best": "best Dice, an oracle's threshold",
    "dice_fpr05_id": "Dice at 5 % of in-distribution pixels",
}
_LAWS = {"p_value": "model's law", "p_conformal": "healthy images"}


def render(fields: dict[str, Any]) -> str:
    """Return the page; `fields` are those of `of_metrics` and what `finish` adds."""
    folder = pathlib.Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": text.interval, "number": text.number}
    return environment.get_template("report.html").render(fields)


def of_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the template that the metrics alone fill."""
    said = [*verdict.alarms(metrics), verdict.misfit(metrics)]
    said = [*(verdict.others(metrics, q) for q in QUESTIONS), *said]
    verdicts = (verdict.verdict(metrics, question) for question in QUESTIONS)
    return {
        "main": text.name_of(metrics["main"]),
        "counted": _counted(metrics),
        "tiles": _tiles(metrics),
        "verdicts": [{"sentence": s, "lost": lost} for s, lost in verdicts if s],
        "sentences": [sentence for sentence in said if sentence],
        "comparisons": _comparisons(metrics),
        "groups": _groups(metrics),
        "left_out": metrics["left_out"],
        "numbers": _numbers(metrics),
        "pixels": _pixels(metrics.get("pixel", {})),
    }


def score_rows(
    table: Table, rows: Sequence[int], anchors: dict[int, str]
) -> list[dict[str, str]]:
    """Return lines of the table of scores, of the main detector.

    Args:
      table: of the run.
      rows: images to list, in this order.
      anchors: of those with a picture on the page, by row.
    """
    columns = table.columns[table.main]
    lines = []
    for i in rows:
        score = text.plus_minus(columns["score"][i], columns["stderr"][i])
        first_bad = int(table.first_bad_step[i])
        if broke := text.where_it_broke(columns["score"][i], first_bad):
            score += f", {broke}"
        p = columns["p_value"][i]
        lines.append(
            {
                "anchor": anchors.get(i, ""),
                "name": table.ids[i],
                "group": table.groups[i],
                "score": score,
                "p": text.p_text(p).removeprefix("= ") if np.isfinite(p) else "",
            }
        )
    return lines


def settings_text(value: Any) -> str:
    """Write a nested setting as "views 24, span 180.0"."""
    if not isinstance(value, dict):
        return str(value)
    inner = (
        f"{k} ({settings_text(v)})" if isinstance(v, dict) else f"{k} {v}"
        for k, v in value.items()
    )
    return ", ".join(inner)


def _counted(metrics) -> str:
    counts = metrics["counts"]
    parts = [f"{counts['images']} images"]
    words = {"id": "in-distribution", "ood": "anomalous", "unknown": "of unknown group"}
    parts += [f"{counts[k]} {word}" for k, word in words.items() if counts[k]]
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
                else "won"
                if name in metrics["wins"][question]
                else "",
                "color": _MAIN if name == metrics["main"] else _OTHER,
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
    for law, words in _LAWS.items():
        for side in ("id", "ood", "unknown"):
            name = {"id": "ID at ", "ood": "OOD at ", "unknown": "at "}[side]
            columns[f"{name}p < 0.05, {words}"] = _share(law, side)
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
