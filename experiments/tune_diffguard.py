"""Which score of a classifier is best, and how strongly DiffGuard guides.

    python experiments/tune_diffguard.py --images=cifar10 [--weights=2,5]

On training images, one half of them mixed with each other (`lab.class_sets.simulated`):
no image that a table counts is seen. The best has the highest mean AUROC over the kinds
of mixed images; KNN and ViM are fitted to others. Without --weights DiffGuard keeps
what was published (`lab.class_detectors.DEFAULTS`). With them, all share the way up,
which ends where the PSNR of state and image is what it is, in the median of training
images, at 3/5 of the levels, the paper's choice; weight, mask and distance are chosen.

Prints one JSON object and writes scores/<images>_tuned.json, which detection.py takes.
The classifier is certain of the images it learnt, so that errors of its own, which
DiffGuard takes for anomalies, are not seen here. About a minute on two cores, and four
more for each weight.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from lab import class_benchmarks, regenerated, scores
from lab import class_detectors as known
from lab.class_sets import MIXED, simulated

from klip_jax import hub, metrics
from klip_jax.config import build
from klip_jax.detectors.base_inversion import invert
from klip_jax.distances import pixel
from klip_jax.files import write_atomically
from klip_jax.priors.clipped import Clipped
from klip_jax.types import Given

FLAGS = flags.FLAGS
flags.DEFINE_enum("images", "cifar10", ["cifar10", "mnist"], "Which benchmark's.")
flags.DEFINE_integer("count", 24, "Training images, and as many mixed, to guide.")
flags.DEFINE_list("weights", [], "Of guidance, to choose among; none: as published.")
flags.DEFINE_string("workdir", "runs/tune_diffguard", "Where chains are kept.")
CUTS = None, 0.3
DISTANCES = ("logits.l1", "logits.normalised_l1", "deep.cosine", "pixel.l1")
SHARE = 3 / 5  # of the levels that are climbed, in the median
FITS, MIXES = 600, 480


def main(_):
    own = class_benchmarks.BENCHMARKS[FLAGS.images]
    prior, _ = hub.load(own.prior)
    classifier, _ = hub.load_classifier(own.classifier)
    train = build("data", class_benchmarks.training_images(own, FITS + MIXES))
    order = np.random.default_rng(0).permutation(len(train))
    block = train.shape[0] // 4
    images = simulated(data=train.take(order[:MIXES]), seed=0, block=block)
    said = of_classifier(classifier, images, train.take(order[MIXES:]))
    theirs = {name: by_kind(values, images.groups) for name, values in said.items()}
    chosen = dict(score=max(theirs, key=lambda name: theirs[name]["mean"]))
    report = dict(chosen=chosen, classifier=theirs)
    if FLAGS.weights:
        some = train.take(order[: 2 * FLAGS.count])
        images = simulated(data=some, seed=0, block=block)
        stop_psnr = threshold(prior, images)
        tuned = known.DEFAULTS | dict(stop_psnr=stop_psnr)
        folder = Path(FLAGS.workdir) / FLAGS.images
        values, stops = guided(prior, classifier, images, tuned, folder)
        ours = {name: by_kind(said, images.groups) for name, said in values.items()}
        best = json.loads(max(ours, key=lambda name: ours[name]["mean"]))
        chosen |= dict(zip(("weight", "cut", "distance"), best, strict=True))
        chosen |= dict(stop_psnr=stop_psnr)
        report |= dict(diffguard=ours, stops=stops)
    path = scores.FOLDER / f"{FLAGS.images}_tuned.json"
    text = json.dumps(report, indent=1)
    write_atomically(path, text.encode())
    print(text)


def threshold(prior: Any, images) -> float:
    """Return the PSNR, dB, of training images at `SHARE` of the levels, the median."""
    ladder = build("detectors", known.diffguard(known.DEFAULTS)).ladder
    steps = round(SHARE * len(ladder.sigmas))

    def one(prior, x):
        denoiser = Clipped(prior.given(None))
        up = invert(denoiser, x, ladder, steps=steps, stop=lambda _: jnp.asarray(False))
        return pixel.psnr(up.latent, x)

    own = images.images[np.array(images.groups) == "id"]
    decibels = jax.jit(jax.vmap(one, (None, 0)))(prior, jnp.asarray(own))
    return round(float(np.median(decibels)), 2)


def guided(prior, classifier, images, tuned, folder) -> tuple[dict, list[int]]:
    """Return {settings: scores [N]}, and where the way up ended."""
    detector = build("detectors", known.diffguard(tuned))

    def up_and_down(prior, classifier, x):
        given = Given(prior, image=x, classifier=classifier)
        up = detector.invert(given, x)
        return up.latent, up.stop, detector.generate(given, up, None)

    program = jax.jit(jax.vmap(up_and_down, (None, None, 0)))
    x = images.images
    parts = [
        program(prior, classifier, jnp.asarray(x[i : i + 4]))
        for i in range(0, len(x), 4)
    ]
    latent, stop, plain = (np.concatenate(a) for a in zip(*parts, strict=True))
    left = regenerated.Left(x, latent, stop, plain, plain)
    seen = regenerated.predicted(classifier, x)
    values = {}
    for weight, cut in itertools.product(map(float, FLAGS.weights), CUTS):
        own = build("detectors", known.diffguard(tuned | dict(weight=weight, cut=cut)))
        name = json.dumps([weight, cut])
        place = folder / name.strip("[]").replace(", ", "_")
        down, _ = regenerated.again(own, prior, classifier, left, seen, place)
        for distance in DISTANCES:
            one = own.replace(distance=distance)
            key = json.dumps([weight, cut, distance])
            values[key] = regenerated.distances(one, classifier, plain, down)
    return values, np.bincount(stop).tolist()


def of_classifier(classifier, images, usual) -> dict[str, np.ndarray]:
    """Return the scores [N] of each detector that asks the classifier alone."""
    values, looks = {}, {}
    for name, chosen in (known.SCORES | known.FITTED_SCORES).items():
        detector = build("detectors", chosen)

        def look(x, detector=detector):
            given = Given(None, image=x, classifier=classifier)
            return detector.look(jax.random.key(0), given)

        kind = type(detector).look  # most look at the same
        if kind not in looks:
            looks[kind] = [
                regenerated.mapped(look, some.images) for some in (images, usual)
            ]
        looked, of_usual = looks[kind]
        fitted = detector.fit(of_usual) if detector.fits else detector
        values[name] = np.asarray(
            jax.vmap(lambda one, fitted=fitted: fitted.judge(one).score)(looked)
        )
    return values


def by_kind(values, groups) -> dict[str, float]:
    """Return {kind of mixed image: AUROC}, and their mean."""
    groups, table = np.array(groups), {}
    for kind in MIXED:
        kept = np.isin(groups, ("id", kind))
        table[kind] = metrics.auroc(values[kept], groups[kept] == kind)
    return table | dict(mean=float(np.mean(list(table.values()))))


if __name__ == "__main__":
    app.run(main)
