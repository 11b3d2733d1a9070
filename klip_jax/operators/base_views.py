"""Settings that all geometries of computed tomography have."""

import math
from typing import Any

import numpy as np


def check_image(in_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return height and width; raise a ValueError if there are several channels."""
    height, width, channels = in_shape
    if channels != 1:
        raise ValueError(f"in_shape={in_shape}: CT takes 1 channel; vmap over them")
    return height, width


def check_positive(**settings: float) -> None:
    """Raise a ValueError if a length is not positive and finite."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(
                f"{name}={value}: must be positive and finite; give a length"
            )


def check_detectors(detectors: float) -> int:
    """Return the number of bins; raise a ValueError if it is not a count."""
    if detectors != int(detectors) or detectors < 1:
        raise ValueError(
            f"detectors={detectors}: must be a whole number >= 1; "
            "leave it out to see everything"
        )
    return int(detectors)


def check_shift(centre: Any, offset: float) -> tuple[float, float, float]:
    """Return (right, up, offset) of rotation_centre and detector_offset.

    Raises:
      ValueError: if they are not two finite numbers and one.
    """
    shift = np.asarray(centre, float)
    if shift.shape != (2,) or not np.isfinite(shift).all():
        raise ValueError(
            f"rotation_centre={centre}: must be two finite numbers; give pixels right "
            "and up from the image centre"
        )
    if not math.isfinite(offset):
        raise ValueError(f"detector_offset={offset}: must be finite; give bins")
    return float(shift[0]), float(shift[1]), float(offset)


def choose_angles(
    views: float,
    span: float,
    angles: Any,
    *,
    start: float = 0.0,
    direction: int = 1,
    endpoint: bool = False,
) -> tuple[float, ...]:
    """Return the angles of all views, degrees.

    start + direction * a, a of `angles`, or a = k * span / views, k = 0, 1, ...; with
    the endpoint a = k * span / (views - 1).

    Raises:
      ValueError: if there is no angle, or one is not finite.
    """
    if direction not in (1, -1) or not math.isfinite(start):
        raise ValueError(
            f"start={start}, direction={direction}: must be finite degrees, and 1 "
            "(counter-clockwise) or -1"
        )
    if angles is not None:
        listed = np.asarray(angles, float)
        if listed.ndim != 1 or not listed.size or not np.isfinite(listed).all():
            raise ValueError(
                f"angles={angles}: must be a list of finite numbers; give degrees, or "
                "leave them out for views and span"
            )
        return tuple((start + direction * listed).tolist())
    if views != int(views) or views < 1 or not 0 < span < math.inf:
        raise ValueError(
            f"views={views}, span={span}: must be a whole number >= 1 and a positive "
            "angle; give a count and degrees"
        )
    if endpoint and views < 2:
        raise ValueError(f"views={views}: the endpoint needs at least 2 views")
    step = span / (views - 1 if endpoint else views)
    return tuple((start + direction * (step * np.arange(int(views)))).tolist())
