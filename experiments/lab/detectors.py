"""The detectors of `detection.py`: their settings, and their names in the tables.

A name in a table says what a detector looks at: "y" its measurements, "x^" the mean of
our posterior samples, "x" the true image, which no detector has in practice: a bound.
Those of x are the ones of x^ in a run without a scanner. None pools its map: how far
each is better smoothed is chosen on tuning images (tune_baselines.py).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

OURS = "KLIP as configured (y)"
GUIDED = "KLIP guided (y)"
MISFIT = "KL + half the misfit (y)"
RELEASED = "KLIP as released"
BOUND = "supervised bound (y)"
TEMPLATE = "control: position_template"
LEVELS = 0.05, 0.1, 0.2, 0.4, 0.8  # that reconstructions start from, image units
SHARES = 0.5, 0.75  # of the measurements that a subset keeps
STEPS = 10  # of each reconstruction
MSMA = tuple(float(s) for s in np.geomspace(0.01, 1.0, 10))
PATH = tuple(float(s) for s in np.geomspace(0.01, 20.0, 10))
# Of the release's four; at 64 pixels the last has the third's window and blocks.
RELEASES = "chaos_song_image", "chaos_song_dataset"
# The third has the window of the first, and pixels for blocks: the same map scores it.
PADIS, PADIS_MAP = (
    f"{RELEASED}, {config} (y)" for config in ("chaos_padis_image", RELEASES[0])
)
Chosen = dict[str, dict[str, Any]]
"""{name in the table: settings of the detector}."""


def of_scan(settings: Mapping[str, Any], *, released: bool) -> Chosen:
    """Return the detectors of a run with a scanner.

    Args:
      settings: of a config, as plain data.
      released: KLIP as released too.
    """
    klip = settings["detectors"][settings["main"]]
    plain = dict(pool_width=0.0, filter_weight=0.0)
    filtered = plain | dict(filter_weight=1.0)
    chosen = {
        OURS: klip,
        GUIDED: klip | plain | dict(map="guided"),
        "KLIP coherent (y)": klip | plain | dict(map="coherent"),
        "KLIP coherent guided (y)": klip | plain | dict(map="coherent_guided"),
        "KLIP coherent, filtered (y)": klip | filtered | dict(map="coherent"),
        "KLIP coherent guided, filtered (y)": klip
        | filtered
        | dict(map="coherent_guided"),
    }
    for name, control in settings["detectors"].items():
        if control["name"].startswith("controls."):
            # The table's name is older than the detector's.
            name = "posterior_std" if name == "posterior_spread" else name
            chosen[f"control: {name}"] = control
    reconstructed = dict(name="sinogram_error.SinogramError", levels=LEVELS)
    for domain, name in (("sinogram", ""), ("image", ", image domain")):
        own = dict(steps=STEPS, domain=domain)
        chosen[f"sinogram error{name} (y)"] = reconstructed | own
    subset = dict(name="subset_variance.SubsetVariance")
    for share in SHARES:
        own = dict(share=share, steps=settings["posterior"]["steps"])
        chosen[f"subset variance {share} (y)"] = subset | own
    for config in RELEASES if released else ():
        own = dict(name="klip_release.ReleasedKLIP", config=config)
        chosen[f"{RELEASED}, {config} (y)"] = own
    return chosen | of_image("x^")


def of_image(looks_at: str = "x") -> Chosen:
    """Return the detectors that look at an image, or what stands for it."""
    chosen: Chosen = {
        f"AnoDDPM {level} ({looks_at})": dict(
            name="noised_reconstruction.AnoDDPM", sigma=level, steps=STEPS
        )
        for level in LEVELS
    }
    others = {
        "DDPM-OOD": dict(
            name="noised_reconstruction.DDPMOOD", levels=LEVELS, steps=STEPS
        ),
        "MSMA": dict(name="msma.MSMA", levels=MSMA),
        "block MSMA": dict(name="msma.BlockMSMA", levels=MSMA),
        "DiffPath-1D": dict(name="diffpath.DiffPath1D", levels=PATH),
        "DiffPath-6D": dict(name="diffpath.DiffPath6D", levels=PATH),
    }
    return chosen | {f"{name} ({looks_at})": own for name, own in others.items()}


def sees_samples(name: str) -> bool:
    """Return whether a detector of this name looks at the shared posterior samples."""
    own = name.startswith(("KLIP", "KL +", "control")) and not name.startswith(RELEASED)
    return own or "(x^)" in name
