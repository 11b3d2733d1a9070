"""Before the images: healthy images and draws of the model, for fits and p-values.

Both go through the same looks as the images, into workdirs of their own, `healthy/` and
`law/`, unless a law ships with the weights that knows their scores already. A detector
that fits does so on the first half of the healthy images, or of the draws where there
are none, and is judged on what it was not fitted on. Its scores of healthy images are
the first law (split-conformal), those of draws, widened for images that the prior has
not seen (`calibration.widened`), the second; a detector that fits sees the draws as
`unseen` makes them.
"""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax import calibration, reference_law
from klip_jax.run import chunks
from klip_jax.run.claim import claim
from klip_jax.run.inputs import Inputs, of_draws
from klip_jax.run.job import Job
from klip_jax.run.look import Viewer
from klip_jax.run.store import Store
from klip_jax.types import Detector

_AT_ONCE = 64  # images judged at once


class Reference(NamedTuple):
    """What a detector is compared with.

    Attributes:
      detector: fitted, if it fits.
      law: its scores of draws of the model [M], widened; [0] without draws.
      healthy: its scores of healthy images [n]; [0] without.
      draws: the law before it was widened [M].
    """

    detector: Detector
    law: np.ndarray
    healthy: np.ndarray
    draws: np.ndarray


class References(dict[str, Reference]):
    """References by the detectors' names."""

    def p_values(self, name: str, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return p-values [n] under the model's law, and conformal ones."""
        reference = self[name]
        return (
            calibration.p_value(scores, reference.law),
            calibration.conformal_p_value(scores, reference.healthy),
        )


def draws_to_do(job: Job) -> int:
    """Return how many draws of the model are still to be looked at."""
    return _to_do(job, "law", job.draws) if job.drawn else 0


def healthy_to_do(job: Job) -> int:
    """Return how many healthy images are still to be looked at."""
    return 0 if job.healthy is None else _to_do(job, "healthy", len(job.healthy))


def references(job: Job, viewer: Viewer, *, progress: bool = True) -> References:
    """Look at draws and healthy images as far as it is not done, fit, and compare.

    Args:
      job: see `prepare`.
      viewer: of the job.
      progress: show bars.

    Raises:
      ValueError: if what a detector fits on does not serve, or a store is broken.
    """
    stores = {}
    if job.drawn:
        inputs = of_draws(job.draws, job.settings["seed"])
        stores["law"] = _fill(job, viewer, "law", inputs, job.drawn, progress)
    if job.healthy is not None:
        stores["healthy"] = _fill(
            job, viewer, "healthy", job.healthy, job.detectors, progress
        )
    made = {name: _reference(job, name, stores) for name in job.detectors}
    return References(made)


def failures(made: References) -> list[str]:
    """Say of which detectors a draw or a healthy image failed: they get no p-values."""
    sentences = []
    for name, reference in made.items():
        for what, scores in (
            ("draws of the model", reference.law),
            ("healthy images", reference.healthy),
        ):
            bad = int(np.sum(~np.isfinite(scores)))
            if bad:
                sentences.append(
                    f"{name} has no score of {bad} of {len(scores)} {what}, so it gets "
                    "no p-values by them"
                )
    return sentences


def save(job: Job, made: References) -> None:
    """Write law.npz, to be shipped or named as calibration.law: scores without fits."""
    able = {n: r for n, r in made.items() if not r.detector.fits}
    draws = _whole({name: reference.draws for name, reference in able.items()})
    healthy = _whole({name: reference.healthy for name, reference in able.items()})
    law = reference_law.Law(
        draws,
        {name: job.fingerprints.draws[name] for name in draws},
        healthy,
        {name: job.fingerprints.healthy[name] for name in healthy},
        job.patients,
    )
    if draws or healthy:
        reference_law.save_law(job.folder / "law.npz", law)


def _whole(scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keep the rows that are there and finite."""
    rows = {name: np.asarray(row, np.float32) for name, row in scores.items()}
    return {n: row for n, row in rows.items() if len(row) and np.isfinite(row).all()}


def _fill(
    job: Job, viewer: Viewer, name: str, inputs: Inputs, detectors, progress
) -> Store:
    folder = job.folder / name
    # Whose this is, is said by what the whole run is, and by which detectors look.
    contents = job.digests | {"set of detectors": json.dumps(list(detectors))}
    claim(folder, job.settings, contents, {"total": len(inputs)})
    store = Store(folder)
    fits = frozenset(n for n, d in detectors.items() if d.fits)
    run = job.settings["run"]
    bar = {"law": "draws of the model", "healthy": "healthy images"}[name]
    context = chunks.Context(
        detectors,
        frozenset(detectors) - fits,
        run["images_at_once"],
        run["lease_minutes"],
        chunks.unknown_p_values,
        keep_looked=fits,
        progress=bar if progress else "",
    )
    chunks.fill(store, inputs, viewer, context)
    return store


def _to_do(job: Job, name: str, total: int) -> int:
    if not (job.folder / name / "config.json").is_file():
        return total
    return total - chunks.images_done(Store(job.folder / name), total)


def _reference(job: Job, name: str, stores: dict[str, Store]) -> Reference:
    detector = job.detectors[name]
    of_law = stores.get("law") if name in job.drawn else None
    of_healthy = stores.get("healthy")
    if not detector.fits:
        draws = job.laws.draws.get(name, np.zeros(0))
        healthy = job.laws.healthy.get(name, np.zeros(0))
        if of_law is not None:
            draws = _scores(of_law, name)
        if of_healthy is not None:
            healthy = _scores(of_healthy, name)
        law = calibration.widened(draws, detector, job.record)
        return Reference(detector, law, healthy, draws)
    looks = {
        key: _looked(job, store, name)
        for key, store in (("law", of_law), ("healthy", of_healthy))
        if store is not None
    }
    if "law" in looks and hasattr(detector, "unseen"):
        looks["law"] = detector.unseen(looks["law"], job.record)
    source = "healthy" if "healthy" in looks else "law"
    half = len(jax.tree.leaves(looks[source])[0]) // 2
    fitted = detector.fit(jax.tree.map(lambda a: a[:half], looks[source]))
    looks[source] = jax.tree.map(lambda a: a[half:], looks[source])
    scores = {key: _judged(fitted, looked) for key, looked in looks.items()}
    draws, healthy = (scores.get(key, np.zeros(0)) for key in ("law", "healthy"))
    law = calibration.widened(draws, detector, job.record)
    return Reference(fitted, law, healthy, draws)


def _scores(store: Store, name: str) -> np.ndarray:
    columns = store.scores(["detector", "score"])
    return columns["score"][columns["detector"] == name]


def _looked(job: Job, store: Store, name: str):
    """Read what a detector looked at, all images of a store."""
    leaves, structure = jax.tree.flatten(job.rehearsed[name].looked)
    stored = [store.array(f"{name}/looked/{i}")[:] for i in range(len(leaves))]
    arrays = [
        jnp.asarray(a, leaf.dtype) for a, leaf in zip(stored, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, arrays)


def _judged(detector: Detector, looked) -> np.ndarray:
    """Return the scores [n] of what was looked at."""
    score = jax.jit(jax.vmap(lambda d, one: d.judge(one).score, (None, 0)))
    count = len(jax.tree.leaves(looked)[0])
    parts = [
        score(detector, jax.tree.map(lambda a: a[i : i + _AT_ONCE], looked))  # noqa: B023
        for i in range(0, count, _AT_ONCE)
    ]
    return np.concatenate(parts).astype(np.float64)
