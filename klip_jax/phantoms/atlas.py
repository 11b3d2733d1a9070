"""The abdomen as a table: tissues in Hounsfield units, structures as ellipses.

`place` draws one patient from it; `anatomy` bends and paints. Image axes: x to the
right, y down = posterior. The liver is on the left, as a radiologist looks at it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

AIR, GAS, BONE, MARROW, FAT, SKIN, MUSCLE, CANAL = range(8)
LIVER, SPLEEN, KIDNEY, PANCREAS, BLOOD, BILE, BOWEL, CONTENT = range(8, 16)
ORGANS = (MUSCLE, LIVER, SPLEEN, KIDNEY, PANCREAS)  # where a lesion may be


class Tissue(NamedTuple):
    """Attenuation of one tissue; numbers, or arrays of all.

    Attributes:
      mean: HU without contrast agent.
      jitter: half width of the uniform spread of the mean between slices, HU.
      gain: what a full dose of contrast agent adds, HU.
      sd: standard deviation of the texture, HU.
      coarse: share of its variance with the longer correlation length, in [0, 1].
    """

    mean: Any
    jitter: Any
    gain: Any
    sd: Any
    coarse: Any


TISSUES = {
    AIR: Tissue(-1000, 0, 0, 0, 0),
    GAS: Tissue(-900, 40, 0, 10, 0),
    BONE: Tissue(520, 120, 0, 40, 0),
    MARROW: Tissue(200, 60, 0, 30, 0.3),
    FAT: Tissue(-100, 8, 0, 9, 0.5),
    SKIN: Tissue(-10, 15, 0, 8, 0),
    MUSCLE: Tissue(50, 6, 10, 13, 0.3),
    CANAL: Tissue(30, 6, 0, 10, 0),
    LIVER: Tissue(60, 8, 40, 12, 0.35),
    SPLEEN: Tissue(50, 5, 60, 12.5, 0.15),
    KIDNEY: Tissue(40, 4, 80, 13.5, 0.5),
    PANCREAS: Tissue(42, 6, 40, 13, 0.7),
    BLOOD: Tissue(45, 4, 95, 10.5, 0.1),
    BILE: Tissue(12, 6, 0, 10, 0.1),
    BOWEL: Tissue(45, 8, 30, 12, 0.3),
    CONTENT: Tissue(20, 25, 0, 13, 0.8),
}


class Ellipse(NamedTuple):
    """A structure, and the bounds of its uniform jitter; numbers, or arrays of many.

    Attributes:
      x, y: centre, in units of the trunk's half width and the body's half height.
      a, b: semi-axes, in units of the body's mean radius.
      angle: degrees.
      shift: jitter of the centre, in its units.
      scale: relative jitter of the axes.
      turn: jitter of the angle, degrees.
      level: relative growth of the axes towards the lower end of the slab of slices.
    """

    x: Any
    y: Any
    a: Any
    b: Any
    angle: Any = 0.0
    shift: Any = 0.03
    scale: Any = 0.15
    turn: Any = 12.0
    level: Any = 0.0


def _rib(degrees: float) -> Ellipse:
    """A window on the wall, through which a rib is seen."""
    x, y = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return Ellipse(0.87 * x, 0.87 * y - 0.05, 0.08, 0.08, 0, 0.08, 0.8, 12, -0.3)


ATLAS = {
    "back": (  # paraspinal muscles, psoas
        Ellipse(-0.25, 0.72, 0.20, 0.14, -12, 0.015, 0.12, 5),
        Ellipse(0.25, 0.72, 0.20, 0.14, 12, 0.015, 0.12, 5),
        Ellipse(-0.26, 0.42, 0.09, 0.13, 15, 0.015, 0.2, 8, 0.2),
        Ellipse(0.26, 0.42, 0.09, 0.13, -15, 0.015, 0.2, 8, 0.2),
    ),
    "liver": (  # right and left lobe
        Ellipse(-0.52, -0.12, 0.32, 0.48, 14, 0.05, 0.12, 15, -0.15),
        Ellipse(-0.16, -0.42, 0.34, 0.15, -18, 0.07, 0.25, 15, -0.4),
    ),
    "liver_vessels": (
        Ellipse(-0.36, -0.14, 0.17, 0.022, 25, 0.08, 0.4, 30),
        Ellipse(-0.54, -0.02, 0.12, 0.020, -40, 0.08, 0.4, 30),
        Ellipse(-0.42, -0.38, 0.11, 0.018, 70, 0.10, 0.4, 40),
        Ellipse(-0.60, -0.26, 0.03, 0.03, 0, 0.10, 0.4, 40),
    ),
    "gut": (  # stomach, ascending, descending and transverse colon, small bowel
        Ellipse(0.30, -0.42, 0.25, 0.18, 20, 0.08, 0.25, 25, -0.25),
        Ellipse(-0.60, 0.28, 0.10, 0.10, 0, 0.06, 0.3, 40, 0.3),
        Ellipse(0.72, 0.22, 0.075, 0.085, 0, 0.04, 0.3, 40, 0.2),
        Ellipse(-0.12, -0.64, 0.15, 0.08, 0, 0.12, 0.3, 30, 0.3),
        Ellipse(0.20, -0.12, 0.10, 0.075, 0, 0.09, 0.3, 90, 0.3),
        Ellipse(0.46, -0.04, 0.10, 0.08, 0, 0.08, 0.3, 90, 0.3),
        Ellipse(0.54, -0.34, 0.09, 0.07, 0, 0.08, 0.3, 90, 0.3),
        Ellipse(-0.24, 0.10, 0.075, 0.065, 0, 0.04, 0.3, 90, 0.3),
    ),
    "spleen": (Ellipse(0.66, 0.02, 0.14, 0.32, -12, 0.04, 0.2, 12, -0.3),),
    "pancreas": (Ellipse(0.06, -0.14, 0.20, 0.05, -14, 0.06, 0.25, 15),),
    "gallbladder": (Ellipse(-0.20, -0.06, 0.06, 0.09, 20, 0.06, 0.5, 30),),
    "vessels": (  # aorta, vena cava, mesenteric artery and vein
        Ellipse(0.06, 0.11, 0.070, 0.070, 0, 0.02, 0.2),
        Ellipse(-0.14, 0.12, 0.085, 0.062, 10, 0.02, 0.3),
        Ellipse(0.03, -0.05, 0.030, 0.030, 0, 0.03, 0.2),
        Ellipse(-0.07, -0.08, 0.036, 0.036, 0, 0.03, 0.2),
    ),
    "ribs": tuple(map(_rib, (-30, -2, 26, 48, 132, 154, 182, 210))),
    "vertebra": (Ellipse(0.0, 0.42, 0.17, 0.14, 0, 0.01, 0.1, 4),),
    "arch": (  # transverse processes, spinous process, lamina
        Ellipse(-0.18, 0.62, 0.13, 0.030, -12, 0.015, 0.25, 8),
        Ellipse(0.18, 0.62, 0.13, 0.030, 12, 0.015, 0.25, 8),
        Ellipse(0.0, 0.84, 0.032, 0.11, 0, 0.01, 0.25, 4),
        Ellipse(0.0, 0.66, 0.14, 0.10, 0, 0.01, 0.1, 4),
    ),
    "canal": (Ellipse(0.0, 0.655, 0.085, 0.070, 0, 0.01, 0.1, 4),),
    "kidneys": (
        Ellipse(-0.53, 0.30, 0.135, 0.18, 18, 0.05, 0.15, 20, 0.1),
        Ellipse(0.53, 0.28, 0.135, 0.18, -18, 0.05, 0.15, 20, 0.1),
    ),
}


def place(
    key: Array, units: tuple[Array, Array, Array], level: Array
) -> dict[str, tuple[Ellipse, Array]]:
    """Draw one patient: every structure within the bounds of its jitter.

    x' = (x + shift u) * unit,    a' = a (1 + scale u) (1 + growth * level) * radius,

    with u ~ U(-1, 1) for each number by itself, growth the column `level` of the table.

    Args:
      key: PRNG key.
      units: the trunk's half width, the body's half height and its mean radius,
        scalars, pixels.
      level: position in the slab of slices, scalar in [-1, 1].

    Returns:
      {name: (`Ellipse` of arrays [K] in pixels and radians, uniforms [K, 3] in [-1, 1]
      that are free for other use)}, in the order of `ATLAS`.
    """
    unit_x, unit_y, radius = units
    rows = np.array([e for group in ATLAS.values() for e in group], np.float32)
    table = Ellipse(*rows.T)
    u = jax.random.uniform(key, (len(rows), 8), minval=-1.0)
    grow = radius * (1.0 + table.level * level)
    placed = table._replace(
        x=(table.x + table.shift * u[:, 0]) * unit_x,
        y=(table.y + table.shift * u[:, 1]) * unit_y,
        a=table.a * (1.0 + table.scale * u[:, 2]) * grow,
        b=table.b * (1.0 + table.scale * u[:, 3]) * grow,
        angle=jnp.deg2rad(table.angle + table.turn * u[:, 4]),
    )
    ends = np.cumsum([len(group) for group in ATLAS.values()])[:-1]
    parts = zip(*(jnp.split(leaf, ends) for leaf in (*placed, u[:, 5:])), strict=True)
    return {
        name: (Ellipse(*part[:-1]), part[-1])
        for name, part in zip(ATLAS, parts, strict=True)
    }
