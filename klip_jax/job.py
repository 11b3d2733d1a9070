"""A job: everything that a run needs, built and checked before anything is computed."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from klip_jax import calibration, workdir
from klip_jax.build import build, check_fields, fill, load_prior
from klip_jax.data.base import ImageSet, data_root
from klip_jax.data.npz import read_arrays
from klip_jax.default_config import get_config
from klip_jax.detectors import klip
from klip_jax.operators.base import Operator
from klip_jax.priors.base import NetworkPrior
from klip_jax.results import check_image_id


class Job(NamedTuple):
    """Everything a run needs, built and checked.

    Attributes:
      folder: the workdir.
      settings: the resolved config as plain data.
      prior, operator, noise_std, estimator: what is run.
      images: the image set; None if only measurements are given.
      measurements: y [N, *operator.out_shape]; None if they are simulated.
      ids: names of the images.
      law_fingerprint: of the reference law that fits.
      error_ratio: of the prior, what the law is scaled by; `calibration.error_ratio`.
    """

    folder: Path
    settings: dict
    prior: NetworkPrior
    operator: Operator
    noise_std: float
    estimator: klip.Settings
    images: ImageSet | None
    measurements: np.ndarray | None
    ids: tuple[str, ...]
    law_fingerprint: str
    error_ratio: float


def prepare(settings: dict, folder) -> Job:
    """Build and check a job.

    Args:
      settings: the resolved config as nested dicts of plain data.
      folder: the workdir; made if it is absent.

    Raises:
      ValueError, OSError: one sentence on what is wrong and what to do.
    """
    known = get_config()
    check_fields(settings, known, "config")
    for part in ("prior", "calibration"):
        check_fields(settings[part], known[part], part)
    weights = workdir.shipped(settings["prior"]["weights"], "phantom_ct.safetensors")
    prior, card = load_prior(weights)
    shape = tuple(card["image_shape"])
    estimator = fill(klip.Settings, settings["estimator"], "estimator")
    estimator.check(shape)
    _check_calibration(settings["calibration"])
    noise_std = float(settings["noise_std"])
    if not noise_std > 0:
        raise ValueError(f"noise_std={noise_std}: must be positive; KL diverges at 0")
    if settings["images_at_once"] < 1:
        raise ValueError(f"images_at_once={settings['images_at_once']}: at least 1")
    operator = build("operators", settings["operator"], shape)
    images, measurements, ids = _load_data(settings["data"], shape, operator)
    _check_ids(ids)
    described = {k: settings[k] for k in ("operator", "noise_std", "estimator", "seed")}
    described["draw_steps"] = settings["calibration"]["steps"]
    described |= {k: card[k] for k in ("net", "prior")}
    described["files"] = _digests(settings["operator"])
    law = calibration.fingerprint(prior, described)
    y = b"" if measurements is None else measurements.tobytes()
    contents = {
        "prior or operator": law,
        "set of measurements": hashlib.sha256(y).hexdigest(),
    }
    workdir.claim(folder, settings, contents)
    return Job(
        Path(folder),
        settings,
        prior,
        operator,
        noise_std,
        estimator,
        images,
        measurements,
        ids,
        law,
        calibration.error_ratio(card, estimator.window),
    )


def _load_data(data: dict, shape, operator):
    """Return (images or None, measurements or None, ids)."""
    if not data["measurements"]:
        keys = {k: v for k, v in data.items() if k != "measurements"}
        images = build("data", keys)
        if images.images.shape[1:] != shape:
            raise ValueError(
                f"the images are {images.images.shape[1:]}, the prior is for {shape}; "
                f"give fitting data or --config.prior.weights"
            )
        return images, None, images.ids
    path = Path(data["measurements"])
    path = path if path.is_file() else data_root(data["root"]) / path
    if not path.is_file():
        raise FileNotFoundError(f"{data['measurements']}: no such measurements")
    arrays = read_arrays(path)
    if "y" not in arrays:
        raise ValueError(f"{path}: no array 'y'; it has {sorted(arrays)}")
    y = arrays["y"]
    if y.dtype.kind not in "iuf":
        raise ValueError(f"{path}: y is {y.dtype}; it must hold real numbers")
    y = y.astype(np.float32)
    y = y[None] if y.shape == operator.out_shape else y
    if y.shape[1:] != operator.out_shape:
        raise ValueError(
            f"{path}: y is {y.shape}, but the operator of the config measures "
            f"[N, {', '.join(map(str, operator.out_shape))}]; check its geometry"
        )
    if not np.isfinite(y).all():
        raise ValueError(f"{path}: y holds values that are NaN or infinite")
    ids = tuple(f"y_{i:04d}" for i in range(len(y)))
    if "ids" in arrays:
        ids = tuple(str(name) for name in arrays["ids"].ravel())
    if len(ids) != len(y):
        raise ValueError(f"{path}: {len(y)} measurements but {len(ids)} ids")
    return None, y, ids


def _digests(settings):
    """Return {setting: SHA-256} of the files that settings name: a mask, say."""
    files = {k: v for k, v in settings.items() if isinstance(v, str)}
    return {
        k: hashlib.sha256(Path(v).read_bytes()).hexdigest()
        for k, v in files.items()
        if Path(v).is_file()
    }


def _check_calibration(settings):
    draws, steps = settings["draws"], settings["steps"]
    rules = {
        f"draws={draws}: must be >= 0": draws < 0,
        f"draws={draws}: per_position needs at least 4": (
            settings["per_position"] and draws < 4
        ),
        f"steps={steps}: need at least 2": steps < 2,
    }
    for message, broken in rules.items():
        if broken:
            raise ValueError(f"calibration: {message}")
    if settings["law"] and not Path(settings["law"]).is_file():
        raise FileNotFoundError(
            f"calibration.law={settings['law']!r}: no such file; leave it empty to "
            "compute the law, which the workdir then keeps"
        )


def _check_ids(ids):
    """Every image is a file of its own, so its id must be a name, and its own."""
    seen = set()
    for name in ids:
        if check_image_id(name) in seen:
            raise ValueError(
                f"image id {name!r} occurs twice; give every image its own"
            )
        seen.add(name)
