"""The images of a job, one chunk after the other, with what to compare them with."""

import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax.posterior import at_null_label
from klip_jax.run import chunks, look
from klip_jax.run.job import Job
from klip_jax.run.law import References
from klip_jax.run.look import Viewer
from klip_jax.run.store import Store
from klip_jax.spelling import short
from klip_jax.types import Detector


def detect(
    job: Job, references: References, viewer: Viewer, *, progress: bool = True
) -> Store:
    """Look at every image that has no result yet, and judge it.

    A killed run continues with the chunk it was at, and its numbers are those of a run
    that nobody disturbed.

    Args:
      job: see `prepare`.
      references: fitted detectors and their laws; see `law.references`.
      viewer: of the job.
      progress: show a bar with the time left.
    """
    store, run = Store(job.folder), job.settings["run"]
    context = chunks.Context(
        {name: reference.detector for name, reference in references.items()},
        frozenset(references),
        run["images_at_once"],
        run["lease_minutes"],
        references.p_values,
        progress="detect" if progress else "",
    )
    chunks.fill(store, job.inputs, viewer, context)
    return store


def images_to_do(job: Job) -> int:
    """Return how many images have no result yet."""
    return len(job.inputs) - chunks.images_done(Store(job.folder), len(job.inputs))


def failures(store: Store) -> list[str]:
    """Say of which images a detector has no finite score and map, and where it broke.

    Returns:
      A sentence a detector and place: in the posterior, at its first bad step, or in
      the detector itself.
    """
    names = ("detector", "image_id", "score", "first_bad_step")
    columns = store.scores(names)
    broken, sentences = ~np.isfinite(columns["score"]), []
    for name in dict.fromkeys(columns["detector"]):
        own = columns["detector"] == name
        for in_posterior in (True, False):
            step = columns["first_bad_step"]
            bad = np.flatnonzero(own & broken & ((step >= 0) == in_posterior))
            if bad.size:
                where = "in the detector itself"
                if in_posterior:
                    where = f"in the posterior, from step {step[bad].min()} on"
                sentences.append(
                    f"{name} has no finite score and map of {len(bad)} of {own.sum()} "
                    f"images, {short(columns['image_id'][bad[0]])} the first; it broke "
                    f"{where}"
                )
    return sentences


def network_calls(job: Job, detectors: Mapping[str, Detector]) -> int:
    """Return the network calls of one image, of posterior and `detectors`."""
    posterior = job.scene.posterior
    shared = 0 if posterior is None else posterior.network_calls
    return shared + sum(look.network_calls(job.scene, d) for d in detectors.values())


def seconds_per_call(job: Job) -> float:
    """Time one call of the network, by several images at once as a posterior has."""
    count = 4 if job.scene.posterior is None else job.scene.posterior.samples
    call = jax.jit(jax.vmap(at_null_label(job.scene.prior), (0, None)))
    x = jnp.full((count, *job.shape), 0.5)
    call(x, jnp.float32(0.1)).block_until_ready()
    start = time.perf_counter()
    call(x, jnp.float32(0.1)).block_until_ready()
    return (time.perf_counter() - start) / count
