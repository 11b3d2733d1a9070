"""Work over many images: the reference law, then one image after the other.

Every image is one file, so a killed run continues at the next image, and its numbers
depend on its name and the seed, not on which images were run with it.
"""

import time
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from klip_jax import calibration, kl, workdir
from klip_jax.detectors import klip
from klip_jax.detectors.controls import controls
from klip_jax.job import Job
from klip_jax.parallel import shard_vmap
from klip_jax.results import ImageResult, finished, write_image


def remaining(job: Job) -> list[int]:
    """Return the indices of the images that have no result yet."""
    done = finished(job.folder)
    return [i for i, name in enumerate(job.ids) if name not in done]


def seconds_per_image(job: Job) -> float:
    """Estimate the time of one image by timing the network on N samples."""
    call = jax.jit(jax.vmap(job.prior, (0, None)))
    n = job.estimator.samples
    x = jnp.full((n, *job.operator.in_shape), 0.5)
    call(x, jnp.float32(0.1)).block_until_ready()
    start = time.perf_counter()
    call(x, jnp.float32(0.1)).block_until_ready()
    return (time.perf_counter() - start) * job.estimator.network_calls / n


def find_law(job: Job) -> calibration.ReferenceLaw | None:
    """Return the cached reference law that fits this job, whole or begun, or None."""
    file = job.settings["calibration"]["law"]
    paths = (
        workdir.shipped(file, "phantom_ct_law.npz"),
        job.folder / "reference_law.npz",
    )
    laws = [law for law in map(calibration.load_law, paths) if law is not None]
    fitting = [law for law in laws if law.fingerprint == job.law_fingerprint]
    # The one in the workdir may have been begun by another and gone further.
    return max(fitting, key=lambda law: len(law.scores), default=None)


def reference_law(job: Job, *, progress: bool = True) -> calibration.ReferenceLaw:
    """Return the law of M draws of the model, computing those that are missing.

    The file grows as draws are made, so a killed run continues.
    """
    wanted = job.settings["calibration"]["draws"]
    law = find_law(job)
    if law is None:
        grid = [side // job.estimator.block for side in job.operator.in_shape[:2]]
        empty = np.zeros((0,), np.float32), np.zeros((0, *grid), np.float32)
        law = calibration.ReferenceLaw(*empty, job.law_fingerprint)
    steps = job.settings["calibration"]["steps"]
    root = jax.random.fold_in(jax.random.key(job.settings["seed"]), _number("law"))

    def draw(prior, operator, key):
        key_draw, key_estimate = jax.random.split(key)
        _, y = calibration.prior_predictive(
            key_draw, operator, job.noise_std, prior, steps=steps
        )
        found = klip.estimate(
            key_estimate, y, operator, job.noise_std, prior, job.estimator
        )
        score = klip.detection(found.levels, job.estimator).score
        return score, klip.chosen_map(found.levels, job.estimator)

    draw_all = shard_vmap(draw, shared=2)
    at_once = job.settings["images_at_once"] * jax.device_count()
    first = len(law.scores)
    bar = tqdm(
        total=wanted,
        initial=min(first, wanted),
        unit="draw",
        desc="reference law",
        disable=not progress or first >= wanted,
    )
    for start in range(first, wanted, at_once):
        keys = jax.vmap(lambda m: jax.random.fold_in(root, m))(
            start + jnp.arange(at_once)
        )
        scores, maps = draw_all(job.prior, job.operator, keys)
        law = law._replace(
            scores=np.append(law.scores, scores),
            block_maps=np.concatenate([law.block_maps, np.asarray(maps)]),
        )
        if len(law.scores) % 8 < at_once or start + at_once >= wanted:
            calibration.save_law(job.folder / "reference_law.npz", law)
        bar.update(at_once)
    bar.close()
    return law._replace(scores=law.scores[:wanted], block_maps=law.block_maps[:wanted])


def detect(
    job: Job, law: calibration.ReferenceLaw | None, *, progress: bool = True
) -> None:
    """Run every image that has no result yet; each one is written as it is ready.

    Args:
      job: see `prepare`.
      law: of the model, gives the p-values; None leaves them out.
      progress: show a bar with the time left.
    """
    position = null = None
    if law is not None:
        law = calibration.scaled(law, job.error_ratio)
        if job.settings["calibration"]["per_position"]:
            position = calibration.position_law(law)
        null = calibration.score_law(law, job.estimator.top, position)
    compute = shard_vmap(_one_image(job), shared=3)
    todo = remaining(job)
    at_once = job.settings["images_at_once"] * jax.device_count()
    root = jax.random.key(job.settings["seed"])
    bar = tqdm(
        total=len(job.ids),
        initial=len(job.ids) - len(todo),
        unit="image",
        desc="detect",
        disable=not progress,
    )
    for start in range(0, len(todo), at_once):
        chunk = todo[start : start + at_once]
        # The last chunk is filled up, so that every call has the compiled shape.
        index = chunk + [chunk[-1]] * (at_once - len(chunk))
        began = time.perf_counter()
        keys = jnp.stack([jax.random.fold_in(root, _number(job.ids[i])) for i in index])
        inputs = job.images.images if job.measurements is None else job.measurements
        out = compute(
            job.prior,
            job.operator,
            position,
            keys,
            jnp.asarray(inputs[index]),
            jnp.asarray(_eligible(job, index)),
        )
        out = jax.tree.map(np.asarray, out)
        seconds = (time.perf_counter() - began) / len(chunk)
        for n, i in enumerate(chunk):
            result = _result(job, i, jax.tree.map(lambda a, n=n: a[n], out), seconds)
            if null is not None:
                p_value = calibration.p_value(result.score, null)
                result = result._replace(p_value=p_value)
            write_image(job.folder, result)
            bar.update()
    bar.close()


def _one_image(job):
    """Return the function of one image: measure it, or take y, and run everything."""
    noise_std, settings = job.noise_std, job.estimator

    def one(prior, operator, position, key, y, eligible):
        key_noise, key = jax.random.split(key)
        if job.measurements is None:
            noise = jax.random.normal(key_noise, operator.out_shape)
            y = operator(y) + noise_std * noise
        found = klip.estimate(key, y, operator, noise_std, prior, settings)
        detection = klip.detection(found.levels, settings, position)
        moments = found.mean, found.std
        names = "scale", "emphasis", "pooling"
        filters = {name: getattr(settings, name) for name in names}
        simple = controls(y, operator, prior, *moments, eligible, **filters)
        return found, detection, simple, operator.naive_inverse(y)

    return one


def _eligible(job, index):
    height, width, _ = job.operator.in_shape
    if job.images is None or job.images.eligible is None:
        return np.zeros((len(index), height, width), bool)
    return job.images.eligible[index]


def _result(job, i, out, seconds):
    found, detection, simple, naive = out
    arrays = {
        "heatmap": detection.heatmap,
        "levels": np.geomspace(*job.estimator.window, job.estimator.levels),
        "blocks": found.levels.blocks,
        "mean": found.mean,
        "std": found.std,
        "misfit": found.misfit,
        "naive": naive,
    }
    for name, control in simple.items():
        blocks = kl.block_sum(control, job.estimator.block)
        arrays[f"control_{name}"] = control
        arrays[f"control_score_{name}"] = kl.top_mean(blocks, job.estimator.top)
    group = ""
    if job.images is not None:
        group = job.images.groups[i]
        known = {
            "truth": job.images.images,
            "mask": job.images.masks,
            "eligible": job.images.eligible,
            "body": job.images.body,
            "patient": job.images.patients,
        }
        arrays |= {k: np.asarray(v[i]) for k, v in known.items() if v is not None}
    return ImageResult(
        image_id=job.ids[i],
        group=group,
        score=float(detection.score),
        stderr=float(detection.stderr),
        p_value=float("nan"),
        network_calls=job.estimator.network_calls,
        seconds=seconds,
        first_bad_step=int(found.first_bad_step),
        arrays={k: np.asarray(v) for k, v in arrays.items()},
    )


def _number(name: str) -> int:
    """A stable number of a name, to fold into a key."""
    return zlib.crc32(name.encode())
