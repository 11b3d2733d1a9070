"""The pictures of the page: read from the store, drawn where they changed."""

import base64
import dataclasses
import functools
import re
from typing import Any

import numpy as np

from klip_jax.data.base import ImageSet
from klip_jax.report import canvas, density, figures, roc
from klip_jax.report.maps import read
from klip_jax.report.table import Table
from klip_jax.report.text import name_of
from klip_jax.run.store import Store

_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,150}")


def of_images(
    store: Store,
    table: Table,
    images: ImageSet | None,
    rows: list[int],
    anchors: dict[int, str],
    order: list[str],
) -> list[dict[str, str]]:
    """Draw what changed of the images on the page, and delete all other pictures.

    Args:
      store, table: of the run.
      images: the data; None if they are not there.
      rows: of the table, in the order of the page.
      anchors: names of the places on the page, by row.
      order: of the detectors, whose maps are shown so.

    Returns:
      {"anchor", "alt", "png"} of each image, the PNG in base64.
    """
    folder = store.folder / "figures"
    shown = [_shown(store, table, images, i, order) for i in rows]
    names = {name for each in shown for name in each.heatmaps}
    limits = {
        name: figures.color_limits([each.heatmaps[name] for each in shown])
        for name in sorted(names)
    }
    unit = table.detectors[table.main]["unit"]
    pictures, files = [], set()
    for i, each in zip(rows, shown, strict=True):
        safe = _SAFE.fullmatch(each.image_id)
        # No safe name has a tilde, so that no two images share a file.
        name = each.image_id if safe else f"~{table.index[i]}"
        path = folder / f"image_{name}.png"
        settings: dict[str, Any] = dict(limits=limits, unit=unit)
        png = canvas.kept(
            path,
            [each._asdict(), settings],
            functools.partial(figures.image_figure, each, **settings),
        )
        files.add(path)
        alt = f"images of {each.image_id}"
        pictures.append({"anchor": anchors[i], "alt": alt, "png": _base64(png)})
    for path in folder.glob("image_*.png"):
        if path not in files:
            path.unlink()
    return pictures


def of_curves(
    store: Store, table: Table, metrics: dict[str, Any]
) -> list[dict[str, str]]:
    """Draw the ROC and the densities over noise levels where they changed.

    Args:
      store, table, metrics: of the run.

    Returns:
      {"alt", "png", "caption"} of each.
    """
    drawn = []
    if "detection_auroc" in metrics["detectors"][table.main]:
        usable = np.isfinite(table.scores[table.main])
        content = [table.scores, table.columns[table.main], table.groups]
        png = canvas.kept(
            store.folder / "figures" / "roc.png",
            [*content, table.detectors],
            lambda: roc.roc_figure(table, usable),
        )
        alt = "ROC curves and scores by group"
        drawn.append({"alt": alt, "png": _base64(png), "caption": ""})
    for name in density.density_detectors(table):
        densities = density.read_density(store, table, name)
        if not densities:
            continue
        titles = list(table.detectors[name].get("curves", ()))
        png = canvas.kept(
            store.folder / "figures" / f"density_{name}.png",
            [{side: dataclasses.astuple(d) for side, d in densities.items()}, titles],
            functools.partial(density.density_figure, densities, titles),
        )
        caption = (
            f"{name_of(name)}: where along the noise levels the score sits, mean over "
            "images with its standard error, summed over the image."
        )
        alt = f"density of {name} against sigma"
        drawn.append({"alt": alt, "png": _base64(png), "caption": caption})
    return drawn


def _shown(store, table, images, i, order) -> figures.Shown:
    index, stored = table.index[i : i + 1], store.array_names()
    known = None if images is None else images.read(index)
    measured = "reconstruction/naive" in stored
    pictures = {}
    if known is not None:
        pictures["Truth" if measured else "Image"] = known.images[0]
    mean = "Reconstruction" if measured else "Image"
    for name, title in (("naive", "Naive inversion"), ("mean", mean)):
        if f"reconstruction/{name}" in stored and title not in pictures:
            pictures[title] = read(store.array(f"reconstruction/{name}"), index)[0]
    names = [name for name in order if name in table.with_map()]
    own = table.columns[table.main]
    return figures.Shown(
        image_id=str(table.ids[i]),
        group=str(table.groups[i]),
        **{k: float(own[k][i]) for k in ("score", "stderr", "p_value")},
        first_bad_step=int(table.first_bad_step[i]),
        images=pictures,
        extras=_extras(store, table, index, pictures),
        main=table.main,
        heatmaps={n: read(store.array(f"{n}/heatmap"), index)[0] for n in names},
        mask=None if known is None or known.masks is None else known.masks[0],
    )


def _extras(store, table, index, pictures):
    """Return what the main detector has kept that are other images of that shape."""
    extras = {}
    for name, shape in table.detectors[table.main]["extras"].items():
        if not any(tuple(shape) == x.shape for x in pictures.values()):
            continue
        image = read(store.array(f"{table.main}/{name}"), index)[0]
        if not any(np.array_equal(image, x) for x in pictures.values()):
            extras[name_of(name).capitalize()] = image
    return extras


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode()
