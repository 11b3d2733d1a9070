"""Which score of a classifier is best, how far DiffGuard goes, and what it compares.

    python experiments/tune_diffguard.py --images=cifar10

On training images, one half of them mixed with each other (`lab.class_sets.simulated`):
no image that a table counts is seen. The best has the highest mean AUROC over the kinds
of mixed images; KNN and ViM are fitted to others. Weight and mask of the guidance are
those that were published (`lab.class_detectors.DEFAULTS`); the way up ends with the
published PSNR, and at the latest where `WAYS` says. --count=0 leaves what was chosen of
DiffGuard.

Prints one JSON object and writes scores/<images>_tuned.json, which detection.py takes.
The classifier is certain of the images it learnt, so that errors of its own, which
DiffGuard takes for anomalies, are not seen here. About five minutes on two cores.
"""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from lab import class_benchmarks, regenerated, scores
from lab import class_detectors as known
from lab.class_sets import MIXED, simulated

from klip_jax import hub, metrics
from klip_jax.config import build
from klip_jax.files import write_atomically
from klip_jax.types import Given

FLAGS = flags.FLAGS
flags.DEFINE_enum("images", "cifar10", ["cifar10", "mnist"], "Which benchmark's.")
flags.DEFINE_integer("count", 15, "Training images, and as many mixed, to guide.")
flags.DEFINE_string("workdir", "runs/tune_diffguard", "Where chains are kept.")
WAYS = dict(cifar10=((10, 4),), mnist=((10, 4), (25, 10)))
"""Noise levels, and how many are never climbed; few where calls are expensive."""
REFERENCES = "input", "unguided"
DISTANCES = "logits.l1", "logits.normalised_l1", "deep.maps", "pixel.l1"
FITS, MIXES = 300, 180


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
    path = scores.FOLDER / f"{FLAGS.images}_tuned.json"
    report = json.loads(path.read_text()) if path.is_file() else dict(chosen={})
    report["classifier"] = theirs
    if FLAGS.count:
        images = simulated(
            data=train.take(order[: 2 * FLAGS.count]), seed=0, block=block
        )
        values = guided(prior, classifier, images, Path(FLAGS.workdir) / FLAGS.images)
        ours = {name: by_kind(said, images.groups) for name, said in values.items()}
        best = json.loads(max(ours, key=lambda name: ours[name]["mean"]))
        names = "steps", "skipped", "against", "distance"
        chosen |= dict(zip(names, best, strict=True))
        report["diffguard"] = ours
    report["chosen"] |= chosen
    text = json.dumps(report, indent=1)
    write_atomically(path, text.encode())
    print(text)


def guided(prior, classifier, images, folder) -> dict[str, np.ndarray]:
    """Return {settings: scores [N]}."""
    x, values = images.images, {}
    seen = regenerated.predicted(classifier, x)
    for steps, skipped in WAYS[FLAGS.images]:
        tuned = known.DEFAULTS | dict(steps=steps, skipped=skipped)
        detector = build("detectors", known.diffguard(tuned))

        def up_and_down(prior, classifier, x, detector=detector):
            given = Given(prior, image=x, classifier=classifier)
            up = detector.invert(given, x)
            return up.latent, up.stop, detector.generate(given, up, None)

        program = jax.jit(jax.vmap(up_and_down, (None, None, 0)))
        parts = [
            program(prior, classifier, jnp.asarray(x[i : i + 2]))
            for i in range(0, len(x), 2)
        ]
        latent, stop, plain = (np.concatenate(a) for a in zip(*parts, strict=True))
        left = regenerated.Left(x, latent, stop, plain, plain)
        place = folder / f"{steps}_{skipped}"
        down, _ = regenerated.again(detector, prior, classifier, left, seen, place)
        for against, distance in itertools.product(REFERENCES, DISTANCES):
            one = detector.replace(distance=distance)
            reference = x if against == "input" else plain
            key = json.dumps([steps, skipped, against, distance])
            values[key] = regenerated.distances(one, classifier, reference, down)
        print(steps, skipped, "done", flush=True)
    return values


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
