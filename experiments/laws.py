"""Whether p-values are what they say: both laws, on healthy images of four sets.

    python experiments/laws.py --make=phantoms|slices|brains|faces   a law, to ship
    python experiments/laws.py --cover=...                scores of other healthy images
    python experiments/laws.py --draw=phantoms --sampler=churn       scores of draws
    python experiments/laws.py                             the tables, from kept scores

A law is made of `--healthy` images that the prior was not trained on and no test set
holds (`lab/held_out.py`) and of `--draws` draws of the model, and is written beside the
weights. The images that judge it are healthy ones of the test set and others that
neither prior nor law has seen. Scores are kept in scores/laws.json; without a flag the
script prints one JSON object with `checks` and writes results/laws.md.

An image costs its posterior and one look, 170 to 190 calls of a network of 64x64: 2
seconds on a phantom, 4 on the others, on one quiet core; a killed run goes on.
"""

import json
from pathlib import Path

from absl import app, flags
from checks import finish
from lab import laws

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
flags.DEFINE_integer("healthy", laws.HEALTHY, "Held-out images of the law.")
flags.DEFINE_integer("draws", 0, "Draws of the model; 0 keeps those of the law there.")
flags.DEFINE_integer("count", 0, "Of --cover, images; 0: all of the set.")
flags.DEFINE_string("workdir", "runs/laws", "Where results are kept.")
HERE = Path(__file__).resolve().parent
SCORES = HERE / "scores" / "laws.json"


def main(_):
    if FLAGS.make:
        make(FLAGS.make)
    elif FLAGS.cover:
        cover(FLAGS.cover)
    elif FLAGS.draw:
        draw(FLAGS.draw, FLAGS.sampler)
    else:
        report, text = laws.report(known())
        write_atomically(HERE / "results" / "laws.md", text.encode())
        finish(report)


def make(name):
    """Write the law of a set beside its weights."""
    healthy = dict(name=f"lab.held_out:{name}", count=FLAGS.healthy)
    settings = laws.settings(name, draws=FLAGS.draws, law="none", healthy=healthy)
    job = prepare(settings, Path(FLAGS.workdir) / f"{name}_law")
    made = references(job, job.viewer())
    save(job, made)
    path = laws.path_of(name)
    law = reference_law.load_law(job.folder / "law.npz")
    if not law.scores and path.is_file():
        old = reference_law.load_law(path)
        law = reference_law.Law(
            old.scores,
            old.fingerprints,
            law.healthy,
            law.healthy_fingerprints,
            law.patients,
        )
    reference_law.save_law(path, law)
    print(f"{path}: {len(law.healthy)} detectors, {path.stat().st_size} bytes")


def cover(name):
    """Keep the scores and p-values of healthy images that no law has seen."""
    rows = {}
    for part, data in laws.covered(name, FLAGS.count).items():
        settings = laws.settings(name, draws=0, data=data)
        job = prepare(settings, Path(FLAGS.workdir) / f"{name}_{part}")
        viewer = job.viewer()
        columns = detect(job, references(job, viewer), viewer).scores()
        mine = columns["detector"] == settings["main"]
        for column in ("image_id", "patient", "score"):
            rows.setdefault(column, []).extend(columns[column][mine].tolist())
        rows.setdefault("part", []).extend([part] * int(mine.sum()))
    keep("covered", name, rows)


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
