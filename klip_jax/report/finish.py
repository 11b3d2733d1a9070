"""Make scores.csv, metrics.json and the report of a run from its store."""

import csv
import io
import json
import pathlib
from typing import Any

import numpy as np

from klip_jax import config, spelling
from klip_jax.data.base import ImageSet, natural
from klip_jax.files import write_atomically
from klip_jax.report import (
    cards,
    comparison,
    p_values,
    page,
    pictures,
    settings,
    strengths,
)
from klip_jax.report.evaluate import evaluate
from klip_jax.report.table import Table, read_table
from klip_jax.report.text import name_of
from klip_jax.run.store import Store

ALL, MOST, FEW = 40, 24, 8
"""All cards of a run of so few; else so many lowest p-values, and ID ones beside."""


def finish(
    folder, images: ImageSet | None = None
) -> tuple[dict[str, Any], pathlib.Path]:
    """Write scores.csv, metrics.json and the report of a run.

    Args:
      folder: of the run.
      images: the data it looked at, where they are at hand; None: read by the config.

    Returns:
      (metrics, path of report.html).

    Raises:
      FileNotFoundError, ValueError: if config.json or a result is absent or broken.
    """
    store = Store(folder)
    table = read_table(store)
    absent = ""
    if images is None:
        images, absent = _data(store, table)
    metrics = evaluate(store, images, absent)
    text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
    write_atomically(store.folder / "metrics.json", text.encode())
    write_atomically(
        store.folder / "scores.csv",
        scores_csv(table, p_values.judge(table, metrics)).encode(),
    )
    return metrics, write_report(store, images, metrics)


def write_report(
    store: Store,
    images: ImageSet | None,
    metrics: dict[str, Any],
    *,
    order: str = "p",
) -> pathlib.Path:
    """Write report.html.

    Up to 40 images all have a card; of more, the 24 with the lowest p-values and 8
    in-distribution ones spread over theirs. Only these are read and drawn.

    Args:
      store: of the run.
      images: the data; None if they are not there.
      metrics: what `evaluate` returned.
      order: of the images, "p" (lowest first) or "name" (natural order).

    Returns:
      The path of report.html.

    Raises:
      ValueError: if `order` is another word, or the store is broken.
    """
    if order not in ("p", "name"):
        raise ValueError(f"order={order!r}: 'p' or 'name'")
    table = read_table(store)
    judged = p_values.judge(table, metrics)
    by_p = p_values.order_of(table, judged)
    rows = by_p.tolist()
    if order == "name":
        rows.sort(key=lambda i: natural(str(table.ids[i])))
    chosen = _chosen(table, by_p, judged.badges == "failed")
    kept = [i for i in rows if i in chosen]
    anchors = {i: f"image-{table.index[i]}" for i in kept}
    names = list(metrics["detectors"])
    shown = {i: pictures.read_shown(store, table, images, i, names) for i in kept}
    listed = rows[: page.LISTED]
    counts = dict(zip(*np.unique(judged.badges[kept], return_counts=True), strict=True))
    misfits = int(judged.misfit[kept].sum())
    hints = settings.hints(store)
    fields = {
        **comparison.of_metrics(metrics),
        **comparison.curves(store, table, metrics),
        "run": store.folder.resolve().name,
        "headline": p_values.headline(judged),
        "histogram": p_values.histogram(table, judged),
        "warnings": p_values.warnings(metrics),
        "remarks": p_values.remarks(metrics),
        "about": _about(table),
        "main_has_map": table.main in table.with_map(),
        "any_outline": any(each.outline for each in shown.values()),
        "cards": cards.cards(table, judged, shown, anchors, images),
        "hints": hints,
        "counts": {k: int(v) for k, v in counts.items()} | {"misfit": misfits},
        "shown": _choice(table, len(kept), order),
        "unit": table.detectors[table.main]["unit"],
        "strengths": strengths.strengths(metrics),
        "scores": page.score_rows(table, judged, listed, anchors),
        "listed": _listed(table, len(listed), order),
        "downloads": settings.downloads(store),
        "arrays": settings.arrays(table),
        "command": settings.command(store),
        "settings": settings.facts(store),
    }
    path = store.folder / "report.html"
    write_atomically(path, page.render(fields).encode())
    return path


def scores_csv(table: Table, judged: p_values.Judged) -> str:
    """Return a line an image: the main detector's columns and the others' scores.

    `verdict` is that of the page, `p` under the law that counts, whose name is `law`.
    Floats survive the round trip; the text of an image is a few hundred bytes.
    """
    own = table.columns[table.main]
    others = [name for name in table.columns if name != table.main]
    columns = {
        "image_id": table.ids,
        "group": table.groups,
        "patient": table.patients,
        "verdict": np.array([p_values.BADGES[badge] for badge in judged.badges]),
        "p": judged.p,
        "law": np.full(len(table.index), judged.law),
        **own,
        "misfit": table.misfit,
        "first_bad_step": table.first_bad_step,
        **{f"{name}/score": table.columns[name]["score"] for name in others},
    }
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(c.tolist() for c in columns.values()), strict=True))
    return file.getvalue()


def _data(store, table) -> tuple[ImageSet | None, str]:
    """Read the data again by the config; or None, and why."""
    settings = dict(store.meta["settings"]["data"])
    if settings.pop("measurements", ""):
        return None, "measurements were given, so the true images are not known"
    try:
        images = config.build("data", settings)
        ids = np.array(images.ids, object)
        known = len(ids) > table.index.max(initial=-1)
        known = known and bool((ids[table.index] == table.ids).all())
        digest = store.meta.get("contents", {}).get("images")
        # Masks drawn anew would be laid over maps of the old images.
        if not known or (digest and images.digest() != digest):
            return None, "the data hold other images or masks now than when it was run"
    except (ValueError, OSError) as error:
        return None, f"the data cannot be read ({spelling.short(str(error))})"
    return images, ""


def _chosen(table, by_p, failed) -> set[int]:
    """Choose the rows that have a card on the page."""
    if len(by_p) <= ALL:
        return set(by_p.tolist())
    # Images that failed have no pictures to look at.
    by_p = np.concatenate([by_p[~failed[by_p]], by_p[failed[by_p]]])
    own = by_p[table.sides["id"][by_p]]
    spread = np.linspace(0, len(own) - 1, min(FEW, len(own))).round().astype(int)
    return {int(i) for i in [*by_p[:MOST], *own[spread]]}


def _about(table) -> str:
    words = table.detectors[table.main].get("about", "")
    main = name_of(table.main) + (f" ({words})" if words else "")
    return (
        "A detector gives each image a score, bigger is more out of distribution; many "
        f"also say where, by a map. The main detector here is {main}; the others look "
        "at the same images."
    )


def _choice(table, count, order) -> str:
    shown = f"All {count} images"
    if count < len(table.index):
        shown = (
            f"The {MOST} lowest p-values of {len(table.index)} images and "
            "in-distribution ones spread over theirs"
        )
    return f"{shown}, {'lowest p first' if order == 'p' else 'by name'}."


def _listed(table, count, order) -> str:
    if count == len(table.index):
        return "All images; scores.csv has all detectors too."
    first = "lowest p-values" if order == "p" else "first by name"
    return f"The {count} {first} of {len(table.index)}; scores.csv holds all."
