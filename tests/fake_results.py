"""A run as it is stored, drawn instead of computed."""

import numpy as np
from scipy import ndimage

from klip_jax.data.base import in_memory
from klip_jax.run.store import COLUMNS, Store, create

SIGMAS = np.geomspace(0.015, 0.6, 8)
DETECTORS = {
    "klip": {
        "class": "klip.KLIP",
        "control": False,
        "unit": "nats per pixel",
        "has_map": True,
        "network_calls": 288,
        "extras": {"levels": [8], "density": [8, 3], "tilt": [2]},
        "curves": ["guided", "coherent", "coherent guided"],
    },
    "msma": {
        "class": "msma.MSMA",
        "control": False,
        "network_calls": 10,
        "classifier_calls": 3,
    },
    "gradient": {"class": "controls.Gradient", "control": True, "has_map": True},
    "intensity": {"class": "controls.Intensity", "control": True, "has_map": True},
}
_ABOUT = {"has_map": False, "unit": "", "network_calls": 0, "extras": {}, "block": 4}
_KNOWN = ("masks", "eligible", "body")


def fake_image(name="id_000", group="id", *, size=32, block=4, seed=0, effect=1.0):
    """Return a dict of what is known of and found in one image.

    A disc is the body; unless the group is "id" there is a blob in it.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    rows, columns = np.mgrid[:size, :size] / size - 0.5

    def noise(width):
        field = ndimage.gaussian_filter(rng.normal(size=(size, size)), width * size)
        return field / field.std()

    body = rows**2 + (columns / 1.3) ** 2 < 0.14
    eligible = rows**2 + (columns / 1.3) ** 2 < 0.09
    truth = np.where(body, 0.5 + 0.08 * noise(0.04), 0.02) + 0.2 * (body ^ eligible)
    mask = np.zeros_like(body)
    if group not in ("id", ""):
        centre = rng.uniform(-0.15, 0.15, 2)
        blob = np.hypot(rows - centre[0], columns - centre[1])
        mask = blob < 0.07
        truth = truth + 0.2 / (1 + np.exp((blob - 0.06) * 80))
    truth = np.clip(truth, 0, 1)
    mean = ndimage.gaussian_filter(truth, 0.012 * size) + 0.01 * noise(0.02)
    excess = ndimage.gaussian_filter(mask * 1.0, 0.02 * size)
    heatmap = 0.4 * body * np.abs(noise(0.015)) + 0.6 * effect * excess
    heatmap = heatmap + 0.02 * noise(0.01)
    side = size // block
    sums = heatmap.reshape(side, block, side, block).sum((1, 3)).ravel()
    bump = np.exp(-0.5 * (np.log(SIGMAS / 0.1)) ** 2)
    score = np.sort(sums)[-3:].mean()
    gradient = np.hypot(*np.gradient(mean))
    return {
        "image_id": name,
        "group": group,
        "patient": "",
        "misfit": rng.chisquare(500) / 500,
        "first_bad_step": -1,
        "score": {
            "klip": score,
            "msma": score + 2 * rng.normal(),
            "intensity": np.sort(mean.ravel())[-20:].mean(),
            "gradient": gradient.max(),
        },
        "stderr": {"klip": 0.1 * score},
        "p_value": {
            name: rng.uniform() ** (1 if group == "id" else 4)
            for name in ("klip", "msma")
        },
        "p_conformal": {},
        "arrays": {
            "klip/heatmap": heatmap,
            "klip/levels": SIGMAS,
            "klip/density": bump[:, None] * np.array([2.0, 0.5, 1.0]) * sums.sum(),
            "klip/tilt": np.ones(2),
            "intensity/heatmap": mean,
            "gradient/heatmap": gradient,
            "reconstruction/mean": np.clip(mean, 0, 1)[..., None],
            "reconstruction/std": 0.02 * np.abs(noise(0.02))[..., None],
            "reconstruction/naive": (truth + 0.08 * noise(0.006))[..., None],
        },
        "images": truth[..., None],
        "masks": mask,
        "eligible": eligible,
        "body": body,
    }


def fake_set(count=6, groups=("id", "lesion"), **settings):
    """Return `count` images of each group."""
    return [
        fake_image(f"{group}_{i:03d}", group, **settings)
        for group in groups
        for i in range(count)
    ]


def write(folder, images, *, main="klip", detectors=DETECTORS, chunk=4, known=_KNOWN):
    """Store the fake `images`; return (store, data).

    Args:
      folder: of the run.
      images: what `fake_image` returns, changed at will.
      main, detectors, chunk: of the run.
      known: regions that the data know.
    """
    about = {name: _ABOUT | detectors[name] for name in detectors}
    meta = {
        "digest": "0" * 64,
        "chunk": chunk,
        "main": main,
        "detectors": about,
        "settings": {
            "main": main,
            "data": {"name": "fake"},
            "scan": {"noise_std": 0.1},
        },
        "versions": {"jax": "1.2.3"},
    }
    create(folder, meta)
    store = Store(folder)
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk]
        rows = [
            _row(image, start + i, name)
            for i, image in enumerate(part)
            for name in detectors
        ]
        arrays = {
            name: np.stack([image["arrays"][name] for image in part])
            for name in part[0]["arrays"]
        }
        columns = {c: [row[c] for row in rows] for c in COLUMNS}
        store.write_chunk(start // chunk, columns, arrays, len(images))
    return store, data_of(images, known)


def data_of(images, known=_KNOWN):
    """Return the data of the fake `images`."""
    if not images:
        return None
    fields = {name: np.stack([image[name] for image in images]) for name in known}
    return in_memory(
        np.stack([image["images"] for image in images]).astype(np.float32),
        [image["image_id"] for image in images],
        [image["group"] for image in images],
        **fields,
    )


def _row(image, index, name):
    nan = float("nan")
    row = {c: image[c].get(name, nan) for c in COLUMNS[5:8]}
    return row | {
        "index": index,
        "detector": name,
        "p_conformal": image["p_conformal"].get(name, nan),
        "network_calls": DETECTORS.get(name, {}).get("network_calls", 0),
        "seconds": 4.2,
        "posterior_seconds": 1.0,
        **{c: image[c] for c in ("image_id", "group", "patient", "misfit")},
        "first_bad_step": image["first_bad_step"],
    }
