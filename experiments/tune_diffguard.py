"""Which score of a classifier is best, how far DiffGuard goes, and what it compares.

    python experiments/tune_diffguard.py --images=cifar10

On training images, one half of them mixed with each other (`lab.class_sets.simulated`):
no image that a table counts is seen. The best has the highest mean AUROC over the kinds
of mixed images; KNN and ViM are fitted to others. Weight and mask of the guidance are
those that were published (`lab.class_detectors.DEFAULTS`) where `WAYS` does not say
another; the way up ends with the published PSNR, and at the latest where `WAYS` says.
The way that is best by any distance is kept. By the distances several are as good on
so few images, so that reference and distance are chosen on others: as many further
training images, mixed again, and images that show nothing, which no table counts
either. --count=0 leaves what was chosen of DiffGuard.

`ways` tells of each way what the images that were not mixed have lost without any
guidance: the error of the pixels, how many are still of their class to the classifier,
and the standard deviation of the noise that was found on the way up, which would be 1.
`DiffNB` is a yardstick, and not chosen from.

Prints one JSON object and writes scores/<images>_tuned.json, which detection.py takes.
The classifier is certain of the images it learnt, so that errors of its own, which
DiffGuard takes for anomalies, are not seen here. About ten minutes on two cores.
"""

import io
import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags
from lab import class_benchmarks, regenerated, scores
from lab import class_detectors as known
from lab.class_sets import simulated

from klip_jax import hub, metrics
from klip_jax.config import build
from klip_jax.data import noise
from klip_jax.data.base_join import join
from klip_jax.files import write_atomically
from klip_jax.types import Given

FLAGS = flags.FLAGS
flags.DEFINE_enum("images", "cifar10", ["cifar10", "mnist"], "Which benchmark's.")
flags.DEFINE_integer("count", 20, "Training images, and as many mixed, to guide.")
flags.DEFINE_string("workdir", "runs/tune_diffguard", "Where chains are kept.")
FAR, NEAR = dict(steps=10, skipped=4), dict(steps=20, skipped=13)
WAYS = dict(
    cifar10=(FAR, NEAR, NEAR | dict(cut=None), NEAR | dict(weight=1.5)),
    mnist=(FAR, dict(steps=25, skipped=10)),
)
"""Noise levels and how many are never climbed: those of CIFAR-10 end at timestep 600 of
1000, as the release does, or at 350, where DiffNB does, in as many calls."""
NOTHING = dict(cifar10=("blobs", "smooth"), mnist=("uniform", "rademacher"))
"""Kinds of `data.noise` that the benchmark itself does not have."""
REFERENCES = "input", "unguided"
COMPARED = "against", "distance"
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
        n, folder = 2 * FLAGS.count, Path(FLAGS.workdir) / FLAGS.images
        images = simulated(data=train.take(order[:n]), seed=0, block=block)
        ways = WAYS[FLAGS.images]
        report["diffguard"], report["ways"] = guided(
            prior, classifier, images, ways, folder
        )
        report["DiffNB"] = of_diffnb(prior, classifier, images, folder)
        way = {k: v for k, v in best(report["diffguard"]).items() if k not in COMPARED}
        images = simulated(data=train.take(order[n : 2 * n]), seed=1, block=block)
        nothing = noise.load(
            groups=NOTHING[FLAGS.images], per_group=FLAGS.count // 2, shape=train.shape
        )
        images = join([images, nothing])
        report["distances"], _ = guided(
            prior, classifier, images, [way], folder / "distances"
        )
        published = {name: known.DEFAULTS[name] for name in ("weight", "cut")}
        chosen |= published | best(report["distances"])
    report["chosen"] |= chosen
    text = json.dumps(report, indent=1)
    write_atomically(path, text.encode())
    print(text)


def best(table) -> dict[str, Any]:
    """Return the settings of the highest mean AUROC."""
    return json.loads(max(table, key=lambda name: table[name]["mean"]))


def guided(prior, classifier, images, ways, folder) -> tuple[dict, dict]:
    """Return {settings: AUROCs}, and {way: what is lost without guidance}."""
    x, values, lost = images.images, {}, {}
    seen = regenerated.predicted(classifier, x)
    for way in ways:
        detector = build("detectors", known.diffguard(known.DEFAULTS | way))

        def up_and_down(prior, classifier, x, detector=detector):
            given = Given(prior, image=x, classifier=classifier)
            up = detector.invert(given, x)
            return up.latent, up.stop, detector.generate(given, up, None)

        up = folder / f"{detector.steps}_{detector.skipped}.npz"
        latent, stop, plain = kept(up, up_and_down, prior, classifier, x)
        own = losses(detector, classifier, images, latent, stop, plain)
        print(way, own, file=sys.stderr, flush=True)
        lost[json.dumps(way)] = own
        left = regenerated.Left(x, latent, stop, plain, plain)
        place = folder / re.sub(r"\W+", "_", json.dumps(way))
        down, _ = regenerated.again(detector, prior, classifier, left, seen, place)
        for against, distance in itertools.product(REFERENCES, DISTANCES):
            one = detector.replace(distance=distance)
            reference = x if against == "input" else plain
            compared = zip(COMPARED, (against, distance), strict=True)
            key = json.dumps(way | dict(compared))
            said = regenerated.distances(one, classifier, reference, down)
            values[key] = by_kind(said, images.groups)
    return values, lost


def kept(path, f, prior, classifier, *arrays) -> list[np.ndarray]:
    """Return what f gives of each image, two at once, or what was kept of it."""
    if not path.is_file():
        program = jax.jit(jax.vmap(f, (None, None, *(0 for _ in arrays))))
        parts = [
            program(prior, classifier, *(a[i : i + 2] for a in arrays))
            for i in range(0, len(arrays[0]), 2)
        ]
        buffer = io.BytesIO()
        np.savez(buffer, *(np.concatenate(a) for a in zip(*parts, strict=True)))
        write_atomically(path, buffer.getvalue())
    with np.load(path) as saved:
        return [saved[name] for name in saved.files]


def losses(detector, classifier, images, latent, stop, plain) -> dict[str, float]:
    """Return what images that were not mixed have lost without guidance."""
    own = np.array(images.groups) == "id"
    x, labels = images.images[own], np.array(images.labels)[own]
    sigma = detector.ladder.above[stop[own].astype(int)][:, None, None, None]
    alpha = 1 / np.sqrt(1 + 4 * sigma**2)  # of a network of [-1, 1]
    noise = (2 * latent[own] - 1 - alpha * (2 * x - 1)) / np.sqrt(1 - alpha**2)
    return dict(
        rmse=float(np.sqrt(np.mean((np.clip(plain[own], 0, 1) - x) ** 2))),
        of_their_class=float(
            np.mean(regenerated.predicted(classifier, plain[own]) == labels)
        ),
        noise=float(noise.std()),
        stop=float(stop[own].mean()),
    )


def of_diffnb(prior, classifier, images, folder) -> dict[str, float]:
    """Return the AUROCs of DiffNB."""
    detector = build("detectors", known.guided(known.DEFAULTS)[known.DIFFNB])

    def score(prior, classifier, key, x):
        given = Given(prior, image=x, classifier=classifier)
        return (detector.judge(detector.look(key, given)).score,)

    x = images.images
    keys = jax.random.split(jax.random.key(0), len(x))
    said = kept(folder / "diffnb.npz", score, prior, classifier, keys, x)[0]
    return by_kind(said, images.groups)


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
    """Return {kind of other image: AUROC}, and their mean."""
    groups, table = np.array(groups), {}
    for kind in (k for k in dict.fromkeys(groups.tolist()) if k != "id"):
        kept = np.isin(groups, ("id", kind))
        table[kind] = metrics.auroc(values[kept], groups[kept] == kind)
    return table | dict(mean=float(np.mean(list(table.values()))))


if __name__ == "__main__":
    app.run(main)
