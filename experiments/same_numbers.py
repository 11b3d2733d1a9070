"""Nothing moved: this package against the numbers that its first house computed.

    python experiments/same_numbers.py [--only=phantom_ct --only=parity ...]

first_house.npz holds, for the default run (32 phantoms) and 8 images of each real
config, what the first house (commit 94bc07c) computed on two CPU cores: score, standard
error and misfit, our map and every control's as sums over blocks of 4x4 pixels, mean,
spread and naive picture likewise, the density over noise levels, and y as 64 sums.
Scanner, sampler and detectors of today's configs run here on the same images.

The PRNG key of an image is another one today by design: it came from 32 bits of the
image's name, and comes from 64. So the three keys that each image had (noise, posterior
samples, levels) are in the file and are used here in place of its own. Images of real
sets are not in the project, and not in the file; their SHA-256 is. A config whose data
are absent is left out, with the reason.

Then parity.py (where the release's saved runs are) and closed_form.py run, as they do
alone. Prints one JSON object with `checks`, exits 1 if one is not ok. The error of a
number is |new - old| over the largest |old| of its kind in its config, at most 1e-5; of
a standard error, which is made of differences of scores, over the largest score. The
control `residual` is the square of A^T y - A^T A x, of which the data leave little:
over its own largest value it moves by 1.3e-5 on phantoms and by 7e-5 on faces. It may
move by what two units in the last place of A^T y make of it, to first order 2.4e-7 of
the geometric mean of its largest value and that of (A^T y)^2. About ten minutes on two
cores, most of them for parity and closed forms.
"""

import hashlib
import itertools
from pathlib import Path

import closed_form
import jax
import jax.numpy as jnp
import numpy as np
import parity
from absl import app, flags
from checks import check, finish
from lab import problems
from lab.batches import over_images

import klip_jax.main  # noqa: F401  sets the XLA flags that a run has
from klip_jax.blocks import block_sum
from klip_jax.detectors import controls
from klip_jax.scan import simulate
from klip_jax.types import Given

FLAGS = flags.FLAGS
SAVED = Path(__file__).resolve().parent / "first_house.npz"
TOLERANCE = 1e-5
ROUNDING = 2 * float(np.finfo(np.float32).eps)
BLOCK, SUMS = 4, 64
# {run: (problem of lab.problems, images of each group)}
RUNS = {
    "phantom_ct": ("phantoms", 16),
    "abdomen_ct": ("slices", 2),
    "brain_mri": ("brain", 4),
    "faces": ("faces", 4),
    "faces_inpaint": ("faces_inpaint", 4),
    "fashion_inpaint": ("clothes", 4),
}
# {name in the file: the control}
CONTROLS = {
    "intensity": controls.Intensity,
    "intensity_inverted": controls.IntensityInverted,
    "intensity_distance": controls.IntensityDistance,
    "gradient": controls.Gradient,
    "residual": controls.Residual,
    "posterior_std": controls.PosteriorSpread,
    "denoised_distance": controls.DenoisedDistance,
}
# Those that emphasise the same scale as our map and are pooled like it.
FILTERED = "residual", "denoised_distance"
FILTERS = "filter_width", "filter_weight", "pool_width"
RESIDUAL = "map/residual", "score/residual"
PROJECTED = "map/projected", "score/projected"
"""The same control where nothing is subtracted: its square of A^T y."""
FORMULAS = "parity", "closed_form"
flags.DEFINE_multi_enum("only", [], [*RUNS, *FORMULAS], "Parts to run; all if none.")


def main(_):
    report = dict(checks=[], left_out={})
    with np.load(SAVED, allow_pickle=False) as file:
        saved = {name: file[name] for name in file.files}
    for part in FLAGS.only or (*RUNS, *FORMULAS):
        try:
            report["checks"] += list(checks_of(part, saved))
        except FileNotFoundError as absent:
            report["left_out"][part] = str(absent)
    finish(report)


def checks_of(part, saved):
    """Return the checks of one run, or of one script."""
    if part == "closed_form":
        # Its numbers are float64, and all others are computed by now.
        jax.config.update("jax_enable_x64", True)
        return itertools.chain.from_iterable(check() for check in closed_form.PARTS)
    if part == "parity":
        if not parity.FOLDER.is_dir():
            raise FileNotFoundError(f"{parity.FOLDER}: no saved runs of the release")
        return parity.checks(parity.PARTS)
    start = f"{part}/"
    old = {k.removeprefix(start): v for k, v in saved.items() if k.startswith(start)}
    return of_run(part, old)


def of_run(run, old):
    """Return the checks of one config against the numbers `old`.

    Raises:
      FileNotFoundError: if its data are absent.
    """
    name, per_group = RUNS[run]
    settings = problems.settings(name, per_group=per_group)
    images = problems.images(settings)
    x = images.images
    known = images.ids == tuple(old["ids"]) and all(map(same, x, old["sha256"]))
    checks = [check(f"{run}: its images, by name and SHA-256", known, True, 0)]
    if not known:
        return checks
    today = problems.setup(settings)
    filters = {name: getattr(today.klip, name) for name in FILTERS}
    simple = {n: c(**filters if n in FILTERED else {}) for n, c in CONTROLS.items()}
    eligible = images.eligible
    eligible = np.zeros(x.shape[:3], bool) if eligible is None else eligible
    shared = *today.scanner, today.sampler, today.klip, simple
    rows = over_images(one_image, shared, old["keys"], x, eligible, desc=run)
    new = jax.tree.map(lambda *row: np.stack(row), *rows)
    for kind, numbers in new.items():
        if kind in PROJECTED:
            continue
        scale = np.abs(old["score" if kind == "stderr" else kind]).max()
        tolerance = TOLERANCE
        if kind in RESIDUAL:
            scale = np.sqrt(scale * new[PROJECTED[RESIDUAL.index(kind)]].max())
            tolerance = ROUNDING
        error = np.abs(numbers - old[kind]).max() / scale
        checks.append(check(f"{run}: {kind}", error, 0, tolerance))
    return checks


def one_image(prior, operator, noise_std, sampler, klip, simple, keys, x, eligible):
    """Return {kind of number in the file: what is computed today}. Pure."""
    noise, samples, levels = jax.random.wrap_key_data(keys)
    scan = simulate(noise, operator, x, noise_std)
    posterior = sampler(samples, scan, prior)
    given = Given(prior, scan=scan, posterior=posterior, eligible=eligible)
    looked = klip.look(levels, given)
    detection = klip.judge(looked)
    numbers = {
        "y": jnp.stack([a.sum() for a in jnp.array_split(scan.y.ravel(), SUMS)]),
        "misfit": posterior.misfit,
        "score": detection.score,
        "stderr": detection.stderr,
        "map/klip": block_sum(detection.heatmap, BLOCK),
        "density": klip.extras(looked)["density"],
    }
    pictures = posterior.mean, posterior.std, operator.naive_inverse(scan.y)
    for kind, picture in zip(("mean", "std", "naive"), pictures, strict=True):
        numbers[kind] = block_sum(picture.sum(-1), BLOCK)
    for name, control in simple.items():
        seen = control(levels, given)
        numbers[f"score/{name}"] = seen.score
        numbers[f"map/{name}"] = block_sum(seen.heatmap, BLOCK)
    projected = simple["residual"].judge(operator.adjoint(scan.y))
    numbers["score/projected"] = projected.score
    numbers["map/projected"] = block_sum(projected.heatmap, BLOCK)
    return numbers


def same(image, digest):
    """Return whether an image has this SHA-256."""
    raw = np.ascontiguousarray(image, np.float32).tobytes()
    return hashlib.sha256(raw).hexdigest() == digest


if __name__ == "__main__":
    app.run(main)
