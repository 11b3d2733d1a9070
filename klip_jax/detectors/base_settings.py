"""What settings of detectors are checked with, when one is built.

A setting is a number or a tuple of them. What is not a Python number, as where jax
rebuilds a detector with tracers, passes.
"""

import itertools
import math
from typing import Any

from klip_jax.types import Scalar

WIDEST = 256.0  # pixels; a filter much wider than an image passes nothing of it


def check_range(low: float, high: float, **settings: Any) -> None:
    """Raise a ValueError naming the first number outside [low, high], or infinite."""
    for name, value, number in _numbers(settings):
        if not (low <= number <= high and math.isfinite(number)):
            rule = f"in [{low:g}, {high:g}]" if high < math.inf else f">= {low:g}"
            raise ValueError(f"{name}={value}: must be {rule} and finite")


def check_widths(**settings: Scalar) -> None:
    """Raise a ValueError naming the first width outside [0, WIDEST] pixels."""
    check_range(0.0, WIDEST, **settings)


def check_positive(**settings: Any) -> None:
    """Raise a ValueError naming the first number that is not > 0 and finite."""
    for name, value, number in _numbers(settings):
        if not 0 < number < math.inf:
            raise ValueError(f"{name}={value}: must be positive and finite")


def check_increasing(**settings: tuple[Scalar, ...]) -> None:
    """Raise a ValueError naming the first tuple not positive, finite and increasing."""
    check_positive(**settings)
    for name, values in settings.items():
        numbers = [number for *_, number in _numbers({name: values})]
        if any(a >= b for a, b in itertools.pairwise(numbers)):
            raise ValueError(f"{name}={values}: must increase from one to the next")


def check_count(least: int = 1, **settings: int) -> None:
    """Raise a ValueError naming the first setting that is no integer >= `least`."""
    for name, value in settings.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value}: must be an integer >= {least}")


def _numbers(settings):
    for name, value in settings.items():
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, int | float):
                yield name, value, number
