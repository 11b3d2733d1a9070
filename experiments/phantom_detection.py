"""Localization and detection on the default phantoms, with every control.

    python experiments/phantom_detection.py [--per_group=100] [--seed=31]

Other anatomies than the default run shows and than the settings were chosen on. Prints
one JSON object with `checks`; the images' results stay in --workdir, so that a second
call only evaluates. About 10 minutes on two cores.
"""

from absl import app, flags
from checks import at_least, finish
from lab import problems

from klip_jax.report import finish as report
from klip_jax.run.detect import detect
from klip_jax.run.job import prepare
from klip_jax.run.law import references

FLAGS = flags.FLAGS
flags.DEFINE_integer("per_group", 100, "Images with and without a lesion.")
flags.DEFINE_integer("seed", 31, "Of the anatomies.")
flags.DEFINE_string("workdir", "runs/phantom_detection", "Where results are kept.")
flags.DEFINE_string("weights", "phantom_ct", "Another prior than the shipped one.")
flags.DEFINE_integer("draws", 0, "Draws of the reference law; 0 leaves p-values out.")


def main(_):
    settings = problems.settings("phantoms", per_group=FLAGS.per_group, seed=FLAGS.seed)
    settings["prior"]["weights"] = FLAGS.weights
    settings["calibration"]["draws"] = FLAGS.draws
    job = prepare(settings, FLAGS.workdir)
    viewer = job.viewer()
    detect(job, references(job, viewer), viewer)
    metrics, page = report.finish(FLAGS.workdir)
    found = metrics["detectors"]
    own = found[metrics["main"]]
    checks = [
        at_least(name, own[name]["value"], target)
        for name, target in (("localization_auroc", 0.90), ("detection_auroc", 0.85))
    ]
    for name, control in found.items():
        if "difference_localization" in control:
            low = control["difference_localization"]["low"]
            checks.append(at_least(f"localization above {name}, 95 % low", low, 0.0))
    finish({"checks": checks, "metrics": metrics, "report": str(page)})


if __name__ == "__main__":
    app.run(main)
