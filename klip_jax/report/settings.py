"""The tab "Settings": what was used, the command that gives it again, and the files."""

import json
from typing import Any
from urllib.parse import quote

from klip_jax.report import density
from klip_jax.report.table import Table
from klip_jax.run.store import Store

UNUSED = ("train",)
"""Settings that a run of detectors does not read."""
PARTS = 8
"""Parts of the scores that are linked one by one; of more, their folder."""

_FILES = {
    "scores.csv": "scores, a line an image",
    "metrics.json": "every number of this page",
    "law.npz": "scores of the model's own draws",
    "config.json": "settings and versions",
    "maps.zarr": "maps and reconstructions of all images (Zarr v3)",
}
_EXPORTED = {
    "nifti": "maps as NIfTI, in the space of the input",
    "dicom": "maps as DICOM, beside the series",
    "overlays": "maps over the images, as PNG",
}
GEOMETRY = "geometry.json"


def facts(store: Store) -> dict[str, str]:
    """Return the values of the settings that were used, and of the versions."""
    said: dict[str, str] = {}
    for name, value in store.meta["settings"].items():
        if name in UNUSED or _is_empty(value):
            continue
        if name == "detectors" and isinstance(value, dict):
            said |= {f"detectors.{n}": settings_text(v) for n, v in value.items()}
        else:
            said[name] = settings_text(value)
    said |= {n: str(v) for n, v in store.meta.get("versions", {}).items()}
    return said | {"git commit": store.meta.get("git") or "not a checkout"}


def command(store: Store) -> str:
    """Return the command line that was given, "" where the run does not tell it."""
    said = store.meta.get("command", "")
    return said if isinstance(said, str) else ""


def settings_text(value: Any) -> str:
    """Write a nested setting as "views 24, span 180.0", without what is empty."""
    if not isinstance(value, dict):
        return str(value)
    inner = (
        f"{k} ({settings_text(v)})" if isinstance(v, dict) else f"{k} {v}"
        for k, v in value.items()
        if not _is_empty(v)
    )
    return ", ".join(inner)


def arrays(table: Table) -> dict[str, str]:
    """List the extras in maps.zarr that are not drawn as curves, with their shapes."""
    drawn = density.density_detectors(table)
    return {
        f"{name}/{extra}": str(list(shape))
        for name, about in table.detectors.items()
        for extra, shape in about["extras"].items()
        if not (name in drawn and extra in ("density", "levels"))
    }


def downloads(store: Store) -> list[dict[str, str]]:
    """Return {"href", "about"} of the files beside the page, relative to it."""
    links = [
        {"href": name, "about": about}
        for name, about in _FILES.items()
        if (store.folder / name).exists()
    ]
    parts = sorted(path.name for path in (store.folder / "scores").glob("*.parquet"))
    about = "scores, a row an image and detector"
    if 0 < len(parts) <= PARTS:
        links += [{"href": f"scores/{quote(name)}", "about": about} for name in parts]
    elif parts:
        links.append({"href": "scores/", "about": f"{about}, {len(parts)} parts"})
    return links + [
        {"href": f"{name}/", "about": about}
        for name, about in _EXPORTED.items()
        if (store.folder / name).is_dir()
    ]


def hints(store: Store) -> dict[str, str]:
    """Return what the run says of the geometry of images that do not fit, by id.

    Raises:
      ValueError: if geometry.json is there and broken.
    """
    path = store.folder / GEOMETRY
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(sentence) for name, sentence in said.items()}
    except (ValueError, AttributeError):
        raise ValueError(f"{path}: not a whole object of sentences") from None


def _is_empty(value: Any) -> bool:
    """Return whether a setting is unset, all the way down."""
    if isinstance(value, dict):
        return all(_is_empty(v) for v in value.values())
    return value is None or value == ""
