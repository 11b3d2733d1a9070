"""Whether p-values are what they say: both laws, on healthy images of four sets.

    python experiments/laws.py --make=phantoms|slices|brains|faces   a law, to ship
    python experiments/laws.py --cover=... --part=test|held   of other healthy images
    python experiments/laws.py --draw=phantoms --sampler=churn       scores of draws
    python experiments/laws.py --exact                     errors of draws of known law
    python experiments/laws.py                             the tables, from kept scores

A law is made of `--healthy` images that the prior was not trained on and no test set
holds (`lab/held_out.py`) and of `--draws` draws of the model, and is written beside the
weights. The images that judge it are healthy ones of the test set and others that
neither prior nor law has seen. Scores are kept in scores/laws.json; without a flag the
script prints one JSON object with `checks` and writes results/laws.md.

An image costs its posterior and one look, 170 to 190 calls of a network of 64x64: 2
seconds on a phantom, 4 on the others, on one quiet core; a killed run goes on.
"""

import dataclasses
import json
from pathlib import Path

from absl import app, flags
from checks import finish
from lab import exact_draws, laws

from klip_jax import reference_law
from klip_jax.files import write_atomically
from klip_jax.run.detect import detect
from klip_jax.run.job import prepare
from klip_jax.run.law import references, save

FLAGS = flags.FLAGS
flags.DEFINE_enum("make", None, list(laws.SETS), "Make the law of a set.")
flags.DEFINE_enum("cover", None, list(laws.SETS), "Judge the law of a set.")
flags.DEFINE_enum("draw", None, list(laws.SETS), "Score draws of a set's prior.")
flags.DEFINE_enum("sampler", "heun", list(laws.SAMPLERS), "Of --draw.")
flags.DEFINE_boolean("exact", False, "Judge the samplers by priors of known law.")
flags.DEFINE_integer("healthy", laws.HEALTHY, "Held-out images; 0 keeps the old ones.")
flags.DEFINE_integer("draws", 0, "Draws of the model; 0 keeps the old ones.")
flags.DEFINE_enum("part", "test", laws.PARTS, "Of --cover: test set, or held-out ones.")
flags.DEFINE_integer("count", 100, "Of --cover, images.")
flags.DEFINE_string("workdir", "runs/laws", "Where results are kept.")
HERE = Path(__file__).resolve().parent
SCORES = HERE / "scores" / "laws.json"


def main(_):
    if FLAGS.make:
        make(FLAGS.make)
    elif FLAGS.cover:
        cover(FLAGS.cover, FLAGS.part)
    elif FLAGS.draw:
        draw(FLAGS.draw, FLAGS.sampler)
    elif FLAGS.exact:
        for name, chosen in laws.SAMPLERS.items():
            keep("exact", name, exact_draws.errors(**chosen))
    else:
        report, text = laws.report(known())
        write_atomically(HERE / "results" / "laws.md", text.encode())
        finish(report)


def make(name):
    """Write the law of a set beside its weights; what is not asked for is kept."""
    path = laws.path_of(name)
    law = reference_law.load_law(path) if path.is_file() else reference_law.Law({}, {})
    if FLAGS.healthy:
        images = dict(name=f"lab.held_out:{name}", count=FLAGS.healthy)
        new = calibrated(name, "healthy", draws=0, healthy=images)
        if name == "slices":  # nobody knows of which patients they are
            new = dataclasses.replace(new, patients=0)
        parts = "healthy", "healthy_fingerprints", "patients"
        law = dataclasses.replace(law, **{part: getattr(new, part) for part in parts})
        reference_law.save_law(path, law)
    if FLAGS.draws:
        new = calibrated(name, "draws", draws=FLAGS.draws)
        parts = "scores", "fingerprints"
        law = dataclasses.replace(law, **{part: getattr(new, part) for part in parts})
        reference_law.save_law(path, law)
    print(f"{path}: {len(law.healthy)} detectors, {path.stat().st_size} bytes")


def calibrated(name, kind, **calibration):
    """Return the law that a run makes, in a workdir of its own."""
    settings = laws.settings(name, law="none", **calibration)
    job = prepare(settings, Path(FLAGS.workdir) / f"{name}_{kind}")
    save(job, references(job, job.viewer()))
    return reference_law.load_law(job.folder / "law.npz")


def cover(name, part):
    """Keep the scores of healthy images that no law has seen."""
    data = laws.covered(name, part, FLAGS.count)
    settings = laws.settings(name, draws=0, data=data)
    job = prepare(settings, Path(FLAGS.workdir) / f"{name}_{part}")
    viewer = job.viewer()
    columns = detect(job, references(job, viewer), viewer).scores()
    mine = columns["detector"] == settings["main"]
    names = "image_id", "patient", "score"
    keep(part, name, {column: columns[column][mine].tolist() for column in names})


def draw(name, sampler):
    """Keep the scores of draws that a sampler made."""
    chosen = laws.SAMPLERS[sampler]
    settings = laws.settings(name, draws=FLAGS.draws or 48, law="none", **chosen)
    settings["detectors"] = {"klip": settings["detectors"]["klip"]}
    job = prepare(settings, Path(FLAGS.workdir) / f"{name}_{sampler}")
    made = references(job, job.viewer())
    keep("draws", f"{name} {sampler}", made["klip"].draws.tolist())


def known():
    """Return the scores that are kept."""
    return json.loads(SCORES.read_text()) if SCORES.is_file() else {}


def keep(kind, name, scores):
    """Put scores beside those that are kept."""
    kept = known()
    kept.setdefault(kind, {})[name] = scores
    text = json.dumps(laws.rounded(kept), indent=None, separators=(",", ":"))
    write_atomically(SCORES, text.replace('],"', '],\n"').encode())
    print(f"{SCORES}: {name}")


if __name__ == "__main__":
    app.run(main)
