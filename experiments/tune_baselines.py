"""How far each detector's map should be smoothed, chosen as our settings were.

    python experiments/tune_baselines.py --images=slices|brain|faces

Every detector of `detection.py` runs on the tuning images of `lab/problems.py`; its map
is smoothed with Gaussians of several widths, and the width of the best localization is
kept in scores/<images>_tuned.json, from where detection.py takes it. Noise levels are
not chosen: the sweep of them is in its table. --only=<start of a name>,... adds
detectors of such names to those that are kept. Prints one JSON object with localization
and detection of all widths. About 4 seconds an image on one core.
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags
from lab import problems, runs
from lab.aurocs import image_scores, localizations
from lab.detectors import TEMPLATE
from lab.scores import FOLDER
from tqdm import tqdm

from klip_jax import metrics
from klip_jax.files import write_atomically

FLAGS = flags.FLAGS
REAL = [name for name in problems.TUNED if name != "phantoms"]
flags.DEFINE_enum("images", "slices", REAL, "Whose tuning images.")
flags.DEFINE_integer("per_group", 12, "Images of each group.")
flags.DEFINE_integer("healthy", 64, "Training images, one half of them for fits.")
flags.DEFINE_integer("seed", 5, "Of the tuning images.")
flags.DEFINE_list("only", [], "Run only detectors whose names start with one.")
flags.DEFINE_string("workdir", "runs/tune_baselines", "Where results are kept.")
WIDTHS = (0.0, 1.0, 2.0, 3.0, 4.5, 6.0)


def main(_):
    settings = problems.settings(FLAGS.images)
    tuning = problems.tuning_data(FLAGS.images, FLAGS.per_group, FLAGS.seed)
    settings["data"] = tuning | {"measurements": ""}
    folder, only = Path(FLAGS.workdir) / FLAGS.images, tuple(FLAGS.only)
    found = runs.everything(settings, folder, healthy=FLAGS.healthy, only=only)
    chosen, rows = {}, {}
    # A template is a mean of maps: smooth, and it has no score of its own.
    tuned = {k: v for k, v in found.maps.items() if k != TEMPLATE}
    for name, maps in tqdm(tuned.items(), unit="detector"):
        rows[name] = {
            f"{width:g}": aurocs(found.images, found.block, runs.smooth(maps, width))
            for width in WIDTHS
        }
        chosen[name] = max(WIDTHS, key=lambda w: rows[name][f"{w:g}"]["localization"])
    path = FOLDER / f"{FLAGS.images}_tuned.json"
    if only:
        chosen = json.loads(path.read_text()) | chosen
    write_atomically(path, json.dumps(chosen, indent=1).encode())
    print(json.dumps({"images": FLAGS.images, "chosen": chosen, "rows": rows}))


def aurocs(images, block, maps):
    """Return both AUROCs of the maps [N, H, W] of one detector."""
    is_ood = np.array(images.groups) != "id"
    between = metrics.auroc(image_scores(maps, block=block), is_ood)
    return {
        "localization": round(float(np.nanmean(localizations(maps, images, block))), 4),
        "detection": round(between, 4),
    }


if __name__ == "__main__":
    app.run(main)
