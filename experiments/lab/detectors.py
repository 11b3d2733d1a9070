"""The detectors of `detection.py`: their settings, and their names in the tables.

A name says what a detector looks at: "y" its measurements, "x^" the mean of our
posterior samples, "x" the true image, which no detector has in practice: a bound. Those
of x are the ones of x^ in a run without a scanner.
"""

from typing import Any

import numpy as np

OURS = "KLIP as configured (y)"
RELEASED = "KLIP as released"
BOUND = "supervised bound (y)"
TEMPLATE = "control: position_template"
# At 64 pixels its fourth config has the window and the blocks of the third.
RELEASES = "chaos_song_image", "chaos_song_dataset", "chaos_padis_image"
LEVELS = (0.05, 0.1, 0.2, 0.4, 0.8)  # that reconstructions start from, image units
STEPS = 10  # of each reconstruction
MSMA = tuple(float(s) for s in np.geomspace(0.01, 1.0, 10))
PATH = tuple(float(s) for s in np.geomspace(0.01, 20.0, 10))
SHARES = 0.5, 0.75  # of the measurements that a subset keeps
# Along which axis of y: whole views, whole lines; of others each number alone.
SLICES = {"ct.ParallelBeam": 0, "mri.Cartesian": 1}
