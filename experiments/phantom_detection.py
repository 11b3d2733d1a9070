"""Localization and detection on the default phantoms, with every control.

    python experiments/phantom_detection.py [--per_group=100] [--seed=31]

Other anatomies than the default run shows and than the settings were chosen on. Prints
one JSON object with `checks`; the images' results stay in --workdir, so that a second
call only evaluates. About 10 minutes on two cores.
"""

import json
import sys

from absl import app, flags

from klip_jax import run
from klip_jax.default_config import get_config
from klip_jax.job import prepare
from klip_jax.report import finish

FLAGS = flags.FLAGS
flags.DEFINE_integer("per_group", 100, "Images with and without a lesion.")
flags.DEFINE_integer("seed", 31, "Of the anatomies.")
flags.DEFINE_string("workdir", "runs/phantom_detection", "Where results are kept.")
flags.DEFINE_string("weights", "", "Another prior than the shipped one.")
flags.DEFINE_integer("draws", 0, "Draws of the reference law; 0 leaves p-values out.")


def main(_):
    config = get_config()
    config.data.per_group = FLAGS.per_group
    config.data.seed = FLAGS.seed
    config.prior.weights = FLAGS.weights
    config.calibration.draws = FLAGS.draws
    job = prepare(config.to_dict(), FLAGS.workdir)
    run.detect(job, run.reference_law(job) if FLAGS.draws else None)
    metrics, page = finish(FLAGS.workdir)
    checks = [
        at_least("localization_auroc", metrics["localization_auroc"]["value"], 0.90),
        at_least("detection_auroc", metrics["detection_auroc"]["value"], 0.85),
    ]
    for name, control in metrics["controls"].items():
        if "difference_localization" in control:
            low = control["difference_localization"]["low"]
            checks.append(at_least(f"localization above {name}, 95 % low", low, 0.0))
    print(json.dumps({"checks": checks, "metrics": metrics, "report": str(page)}))
    return 0 if all(check["ok"] for check in checks) else 1


def at_least(name, value, target):
    ok = bool(value >= target)
    return {"name": name, "value": value, "target": target, "tolerance": 0, "ok": ok}


if __name__ == "__main__":
    app.run(main, argv=sys.argv)
