"""Make scores.csv, metrics.json, the figures and the report of a run from its store."""

import csv
import io
import json
import pathlib
from typing import Any

import numpy as np

from klip_jax import config, spelling
from klip_jax.data.base import ImageSet, natural
from klip_jax.files import write_atomically
from klip_jax.report import density, page, pictures
from klip_jax.report.evaluate import evaluate
from klip_jax.report.table import Table, read_table
from klip_jax.report.text import name_of
from klip_jax.run.store import Store

ALL, MOST, FEW = 40, 24, 8
"""All pictures of a run of so few; else so many highest scores, and ID ones beside."""


def finish(
    folder, images: ImageSet | None = None
) -> tuple[dict[str, Any], pathlib.Path]:
    """Write scores.csv, metrics.json, the figures and the report of a run.

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
    write_atomically(store.folder / "scores.csv", scores_csv(table).encode())
    return metrics, write_report(store, images, metrics)


def write_report(
    store: Store,
    images: ImageSet | None,
    metrics: dict[str, Any],
    *,
    order: str = "score",
) -> pathlib.Path:
    """Write figures/ and report.html.

    Up to 40 images are all on the page; of more, the 24 with the highest scores and 8
    in-distribution ones spread over their scores. Only these are drawn.

    Args:
      store: of the run.
      images: the data; None if they are not there.
      metrics: what `evaluate` returned.
      order: of the images, "score" (highest first) or "name" (natural order).

    Returns:
      The path of report.html.

    Raises:
      ValueError: if `order` is another word, or the store is broken.
    """
    if order not in ("score", "name"):
        raise ValueError(f"order={order!r}: 'score' or 'name'")
    table = read_table(store)
    score = table.scores[table.main]
    # A failed image comes first, where it is seen.
    by_score = np.argsort(-np.nan_to_num(score, nan=np.inf), kind="stable")
    rows = by_score.tolist()
    if order == "name":
        rows.sort(key=lambda i: natural(str(table.ids[i])))
    inline = _inline(table)
    shown = [i for i in rows if i in inline]
    anchors = {i: f"image-{table.index[i]}" for i in shown}
    listed = rows[: page.LISTED]
    fields = page.of_metrics(metrics) | {
        "title": store.folder.resolve().name,
        "about": _about(table),
        "curves": pictures.of_curves(store, table, metrics),
        "scores": page.score_rows(table, listed, anchors),
        "listed": _listed(table, len(listed), order),
        "shown": _choice(table, len(shown), order),
        "pictures": pictures.of_images(
            store, table, images, shown, anchors, list(metrics["detectors"])
        ),
        "arrays": _arrays(table),
        "settings": _facts(store),
    }
    path = store.folder / "report.html"
    write_atomically(path, page.render(fields).encode())
    return path


def scores_csv(table: Table) -> str:
    """Return a line an image: the main detector's columns and the others' scores.

    Floats survive the round trip; the text of an image is a few hundred bytes.
    """
    own = table.columns[table.main]
    others = [name for name in table.columns if name != table.main]
    columns = {
        "image_id": table.ids,
        "group": table.groups,
        "patient": table.patients,
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


def _inline(table) -> set[int]:
    """Choose the rows whose pictures are on the page."""
    score = table.scores[table.main]
    if len(score) <= ALL:
        return set(range(len(score)))
    by_score = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")
    own = by_score[table.sides["id"][by_score]]
    spread = np.linspace(0, len(own) - 1, min(FEW, len(own))).round().astype(int)
    return {int(i) for i in [*by_score[:MOST], *own[spread]]}


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
            f"The {MOST} highest scores of {len(table.index)} images and "
            "in-distribution ones spread over their scores"
        )
    ordered = "highest score first" if order == "score" else "by name"
    unit = table.detectors[table.main]["unit"]
    return (
        f"{shown}, {ordered}. Images are shown in [0, 1]; the maps of a detector on "
        "one colour scale for all images here, so a calm map is a calm image"
        f"{f'; that of {name_of(table.main)} in {unit}' if unit else ''}."
    )


def _listed(table, count, order) -> str:
    if count == len(table.index):
        return "All of them and all detectors are in scores.csv."
    first = "highest" if order == "score" else "first by name"
    return f"The {count} {first} of {len(table.index)}; scores.csv holds all."


def _arrays(table) -> dict[str, str]:
    """List the extras that are not drawn as curves."""
    drawn = density.density_detectors(table)
    return {
        f"{name}/{extra}": str(list(shape))
        for name, about in table.detectors.items()
        for extra, shape in about["extras"].items()
        if not (name in drawn and extra in ("density", "levels"))
    }


def _facts(store) -> dict[str, str]:
    facts: dict[str, str] = {}
    for name, value in store.meta["settings"].items():
        if name == "detectors" and isinstance(value, dict):
            facts |= {f"detectors.{n}": page.settings_text(v) for n, v in value.items()}
        else:
            facts[name] = page.settings_text(value)
    facts |= {n: str(v) for n, v in store.meta.get("versions", {}).items()}
    return facts | {"git commit": store.meta.get("git") or "not a checkout"}
