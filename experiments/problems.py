"""The problems that experiments are run on, and the images their settings come from.

Tuning images are never those that results are reported on: phantoms of another seed,
slices of training patients with anomalies simulated there (`data/simulated.py`).
"""

import importlib.util
from pathlib import Path

from klip_jax import default_config
from klip_jax.build import build, load_prior
from klip_jax.data import phantom_set, simulated
from klip_jax.workdir import shipped

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NAMES = {"phantoms": "", "slices": "abdomen_ct", "brain": "brain_mri"}
SLICES = dict(
    file="abdomen_ct_64.npz",
    greys=(0.3, 0.75),
    groups=tuple(simulated.KINDS),
    offset=50.0,
    scale=205.0,
)
BRAIN = dict(
    file="brain_mri_lgg_128.npz",
    part=(0.9, 1.0),
    healthy="mask_area_256",
    shrink=2,
    greys=(0.08, 0.4),
    groups=("lesion", "grating"),
)


def config(name, *given):
    """Return configs/<name>.py's, "" for the default's, as a ConfigDict."""
    if not name:
        return default_config.get_config()
    path = CONFIGS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*given)


def tuning_images(name, per_group, seed):
    """Return the images that the settings of `NAMES[name]` are chosen on."""
    if name == "phantoms":
        return phantom_set.load(per_group=per_group, seed=seed)
    own = {"slices": SLICES, "brain": BRAIN}[name]
    return simulated.load(**own, per_group=per_group, seed=seed)


def scanner(settings, image_shape, weights=""):
    """Return (prior, its record, operator, noise_std) of a config as plain data."""
    weights = weights or settings["prior"]["weights"]
    prior, record = load_prior(shipped(weights, "phantom_ct.safetensors"))
    operator = build("operators", settings["operator"], image_shape)
    return prior, record, operator, settings["noise_std"]
