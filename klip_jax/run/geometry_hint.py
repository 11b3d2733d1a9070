"""What a run says of the geometry where its measurements do not fit.

Some sinograms of a large misfit are tried in the conventions of `klip_jax.geometry`;
what fits better is told on the terminal and kept in geometry.json for the report.
"""

import json

import jax
import numpy as np

from klip_jax import geometry, keys
from klip_jax.files import write_atomically
from klip_jax.run.job import Job
from klip_jax.run.store import Store
from klip_jax.spelling import short

MOST = 8
"""Sinograms that are tried in a run, spread over those that do not fit."""
FILE = "geometry.json"
"""In the workdir: {image id: sentence}."""


def images_to_try(job: Job) -> list[int]:
    """Return the indices of the measurements that are tried, in their order."""
    if not job.settings["data"].get("measurements") or job.scene.operator is None:
        return []
    columns = Store(job.folder).scores(("image_id", "misfit"))
    misfit = dict(zip(columns["image_id"], columns["misfit"], strict=True))
    off = [i for i, name in enumerate(job.inputs.ids) if _off(misfit.get(name))]
    spread = np.linspace(0, len(off) - 1, min(MOST, len(off))).round().astype(int)
    return [off[i] for i in spread]


def hints(job: Job, chosen: list[int]) -> dict[str, str]:
    """Try the conventions on some measurements; write and return {image id: sentence}.

    Args:
      job: whose images have their results.
      chosen: see `images_to_try`.
    """
    scene, settings = job.scene, job.settings["scan"]
    assert scene.posterior is not None and scene.noise_std is not None
    y = np.asarray(job.inputs.read(np.asarray(chosen)).y, np.float32)
    key = jax.random.fold_in(jax.random.key(job.settings["seed"]), keys.POSTERIOR)
    tried: list[list[geometry.Fit]] = [[] for _ in chosen]
    if np.ndim(scene.noise_std) == 0:
        tried = geometry.fits(
            key,
            y,
            settings["operator"],
            job.shape,
            float(scene.noise_std),
            scene.prior,
            scene.posterior,
        )
    said = {
        job.inputs.ids[i]: sentence
        for i, fit in zip(chosen, tried, strict=True)
        if (sentence := geometry.hint(fit))
    }
    text = json.dumps(said, indent=2) + "\n"
    write_atomically(job.folder / FILE, text.encode())
    return said


def lines(job: Job) -> list[str]:
    """Return what the terminal says, nothing where all measurements fit."""
    chosen = images_to_try(job)
    said = hints(job, chosen) if chosen else {}
    return [f"{short(name)}: {sentence}" for name, sentence in said.items()]


def _off(misfit) -> bool:
    return misfit is not None and bool(misfit > geometry.SPOKEN)
