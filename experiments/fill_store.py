"""Fill a store with simulated results, make its report, and say what that cost.

    python experiments/fill_store.py --folder=runs/many --count=100000

    expected: at most 2 GB and 3 minutes on 2 cores (100,000 images of 32 x 32 pixels,
    10 detectors with maps); filling takes about 3 minutes and 4 GB of disk before that.

The data are a small file of templates that config.json names; image i is template
i modulo their number.
"""

import argparse
import pathlib
import resource
import sys
import time

import numpy as np
from checks import at_least, finish

from klip_jax.data.base import Images, ImageSet
from klip_jax.report.finish import finish as make_report
from klip_jax.run.store import COLUMNS, Store, create

SIDE, CHUNK, TEMPLATES, LEVELS = 32, 500, 60, 6
GROUPS = ("id", "id", "id", "lesion", "texture", "artefact")
CONTROLS = ("intensity", "gradient", "residual", "spread", "equalised", "random")
DETECTORS = ("klip", "msma", "diffpath", "anoddpm", *CONTROLS)


def tiled(path: str, count: int) -> ImageSet:
    """Return `count` images, the templates in the npz file `path` over and over."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in ("images", "masks", "eligible", "body")}
    number = len(arrays["images"])
    return ImageSet(
        ids=tuple(f"image_{i:06d}" for i in range(count)),
        groups=tuple(GROUPS[i % number % len(GROUPS)] for i in range(count)),
        shape=(SIDE, SIDE, 1),
        reader=lambda index: Images(
            **{k: a[index % number] for k, a in arrays.items()}
        ),
        regions=("masks", "eligible", "body"),
    )


def write_templates(path: pathlib.Path) -> None:
    """Write the templates: a disc, and in those not "id" a blob somewhere in it."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    body = rows**2 + columns**2 < 0.2
    eligible = rows**2 + columns**2 < 0.12
    masks = np.zeros((TEMPLATES, SIDE, SIDE), bool)
    for i in range(TEMPLATES):
        if GROUPS[i % len(GROUPS)] != "id":
            y, x = rng.uniform(-0.25, 0.25, 2)
            masks[i] = (rows - y) ** 2 + (columns - x) ** 2 < 0.01
    noise = rng.normal(0, 0.03, masks.shape)
    images = np.clip(0.5 * body + 0.2 * masks + noise, 0, 1)[..., None]
    regions = (np.repeat(region[None], TEMPLATES, 0) for region in (eligible, body))
    arrays = dict(zip(("eligible", "body"), regions, strict=True))
    np.savez_compressed(path, images=images.astype(np.float32), masks=masks, **arrays)


def fill(folder: pathlib.Path, count: int) -> None:
    """Write the store of a run of `count` images."""
    folder.mkdir(parents=True)
    write_templates(folder / "data.npz")
    data = {"name": "fill_store:tiled", "path": str(folder / "data.npz")}
    about = {
        name: {
            "class": f"fill_store.{name}",
            "control": name in CONTROLS,
            "unit": "",
            "has_map": True,
            "network_calls": 0 if name in CONTROLS else 100,
            "block": 4,
            "extras": {},
        }
        for name in DETECTORS
    }
    about["klip"]["extras"] = {"levels": [LEVELS], "density": [LEVELS, 3]}
    settings = {"main": "klip", "data": data | {"count": count}}
    meta = {"digest": "", "chunk": CHUNK, "main": "klip", "detectors": about}
    create(folder, meta | {"settings": settings})
    store, images = Store(folder), tiled(data["path"], count)
    for chunk in range(-(-count // CHUNK)):
        index = np.arange(chunk * CHUNK, min(count, (chunk + 1) * CHUNK))
        store.write_chunk(chunk, *_chunk(images, index), count)


def _chunk(images, index):
    """Return (rows, arrays) of the images `index`; detectors see less and less."""
    rng = np.random.default_rng(int(index[0]))
    seen = images.read(index)
    n, many = len(index), len(DETECTORS)
    is_ood = seen.masks.any((1, 2))
    arrays = {
        "reconstruction/mean": seen.images + rng.normal(0, 0.02, seen.images.shape)
    }
    for d, name in enumerate(DETECTORS):
        noise = rng.standard_normal(seen.masks.shape, np.float32)
        arrays[f"{name}/heatmap"] = seen.masks / (1 + d / 2) + 0.5 * noise
    arrays["klip/levels"] = np.tile(np.geomspace(0.02, 0.8, LEVELS), (n, 1))
    arrays["klip/density"] = rng.gamma(4, 1 + is_ood[:, None, None], (n, LEVELS, 3))
    scores = rng.normal(size=(n, many)) + is_ood[:, None] * 2 / (1 + np.arange(many))
    p = rng.uniform(size=(n, many)) ** (1 + 3 * is_ood[:, None])
    rows = dict.fromkeys(COLUMNS, np.full(n * many, np.nan)) | {
        "index": np.repeat(index, many),
        "image_id": np.repeat([images.ids[i] for i in index], many),
        "group": np.repeat([images.groups[i] for i in index], many),
        "patient": np.full(n * many, ""),
        "detector": np.tile(DETECTORS, n),
        "score": scores.ravel(),
        "p_value": p.ravel(),
        "p_conformal": p.ravel(),
        "misfit": np.repeat(rng.chisquare(500, n) / 500, many),
        "network_calls": np.full(n * many, 100),
        "seconds": np.full(n * many, 0.1),
        "posterior_seconds": np.full(n * many, 1.0),
        "first_bad_step": np.full(n * many, -1),
    }
    return rows, arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    if not options.folder.exists():
        fill(options.folder, options.count)
    began = time.perf_counter()
    metrics, page = make_report(options.folder)
    minutes = (time.perf_counter() - began) / 60
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    checks = [
        at_least("minutes to spare of 3", 3 - minutes, 0),
        at_least("GB to spare of 2", 2 - peak, 0),
        at_least("images evaluated", metrics["counts"]["images"], options.count),
    ]
    main_one = metrics["detectors"]["klip"]
    found = {k: main_one[k] for k in ("localization_auroc", "detection_auroc")}
    sizes = {"minutes": minutes, "peak_gb": peak, "page_bytes": page.stat().st_size}
    finish({"images": options.count, **sizes, **found, "checks": checks})


if __name__ == "__main__":
    # What config.json names must be importable also where this is the main script.
    sys.path.append(str(pathlib.Path(__file__).parent))
    main()
