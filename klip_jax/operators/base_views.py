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


def choose_angles(views: float, span: float, angles: Any) -> tuple[float, ...]:
    """Return the angles of all views, degrees: `angles`, or k * span / views.

    Raises:
      ValueError: if there is no angle, or one is not finite.
    """
    if angles is not None:
        listed = np.asarray(angles, float)
        if listed.ndim != 1 or not listed.size or not np.isfinite(listed).all():
            raise ValueError(
                f"angles={angles}: must be a list of finite numbers; give degrees, or "
                "leave them out for views and span"
            )
        return tuple(listed.tolist())
    if views != int(views) or views < 1 or not 0 < span < math.inf:
        raise ValueError(
            f"views={views}, span={span}: must be a whole number >= 1 and a positive "
            "angle; give a count and degrees"
        )
    return tuple((span / views * np.arange(int(views))).tolist())
