"""What a detector is, and what those with a map share.

    looked = detector.look(key, given)     all that is expensive, once an image
    fitted = detector.fit(looked [N])      from in-distribution ones, where it `fits`
    detection = fitted.judge(looked)       cheap: other blocks, laws, combinations

A detector is a frozen `flax.struct.dataclass` of hyper-parameters (and, once fitted, of
arrays) that inherits from `Detector` and writes `look` and `judge`. The score of a map
is the mean of its largest blocks.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.blocks import block_sum, top_mean
from klip_jax.filters import pool
from klip_jax.types import (
    Detection,
    Given,
    Heatmap,
    Posterior,
    PRNGKey,
    Scalar,
    Scan,
)

Law = TypeVar("Law")

# A spread this small beside the value itself is float32's, not the images'.
ROUNDING = 1e-5
ZERO = 1e-12


class Detector:
    """The defaults of `types.Detector`; a new one writes `look` and `judge`.

    A subclass says what differs by plain class attributes: `needs = ("scan",)`, `fits =
    True`, `control = True`, `unit = "nats"`, and `block` by a field.
    """

    control: ClassVar[bool] = False
    """Whether it is a dumb control, which a detector must beat to be believed."""
    unit: ClassVar[str] = ""
    """Of the score; "" has none."""
    block: int = 4
    """Side of the blocks that score and localization count, pixels."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of `Given` that must be there; "picture": an image or a posterior."""
        return ("picture",)

    @property
    def fits(self) -> bool:
        """Whether `judge` works only after `fit`."""
        return False

    @property
    def network_calls(self) -> int:
        """Network calls of one `look`, those of the shared posterior not counted."""
        return 0

    @property
    def classifier_calls(self) -> int:
        """Calls of the classifier of one `look`, forward or backward."""
        return 0

    def calls(self, samples: int) -> int:
        """Return the network calls of one `look` at so many posterior samples."""
        return self.network_calls

    def look(self, key: PRNGKey, given: Given) -> Any:
        """Return what was seen, a pytree of arrays. Pure: jit, vmap, shard it."""
        raise NotImplementedError(f"{type(self).__name__} does not define look")

    def judge(self, looked: Any) -> Detection:
        """Turn what was seen into a `Detection`, without a network. Pure."""
        raise NotImplementedError(f"{type(self).__name__} does not define judge")

    def fit(self, looked: Any) -> "Detector":
        """Return the detector fitted to what it saw of N in-distribution images."""
        return self

    def extras(self, looked: Any) -> dict[str, Array]:
        """Return named arrays beside the detection, to be stored and shown."""
        return {}

    def unseen_factor(self, record: Mapping[str, Any]) -> float:
        """Return what the scores of the model's own draws are multiplied by in a law.

        A prior errs less on its own draws than on images it has not seen; a detector
        whose score is a square of such errors tells by how much from the weights'
        record.
        """
        return 1.0

    def __call__(self, key: PRNGKey, given: Given) -> Detection:
        """Look at one image and judge it."""
        return self.judge(self.look(key, given))


@struct.dataclass
class MapDetector(Detector):
    """Base of those whose score is the mean of the largest blocks of its map.

    Attributes:
      block: side of a block, pixels; divides the image.
      top_share: share of the blocks that make the score, in [0, 1]; 0 takes the largest
        block.
      pool_width: standard deviation of the Gaussian over which the map is pooled,
        pixels; 0 changes nothing.

    Raises:
      ValueError: naming the first setting that is out of range.
    """

    block: int = struct.field(pytree_node=False, default=4)
    top_share: float = struct.field(pytree_node=False, default=0.02)
    pool_width: Scalar = 0.0

    def __post_init__(self):
        check_count(block=self.block)
        check_range(0.0, 1.0, top_share=self.top_share)
        check_range(0.0, math.inf, pool_width=self.pool_width)

    def of_map(self, heatmap: Heatmap) -> Detection:
        """Reduce a map to a `Detection`; see `map_detection`."""
        share, width = self.top_share, self.pool_width
        return map_detection(
            heatmap, block=self.block, top_share=share, pool_width=width
        )


def map_detection(
    heatmap: Heatmap, *, block: int, top_share: float, pool_width: Scalar = 0.0
) -> Detection:
    """Reduce a map to a `Detection` without a standard error.

    The map is pooled (`filters.pool`) and summed over blocks; the score is the mean of
    the largest of them (`blocks.top_mean`).

    Args:
      heatmap: [H, W], bigger = more anomalous.
      block: side of a block, pixels; divides H and W.
      top_share: share of the blocks, in [0, 1); 0 takes the largest block.
      pool_width: standard deviation of the pooling Gaussian, pixels; 0 changes nothing.

    Raises:
      ValueError: if `block` does not divide the map.
    """
    pooled = pool(heatmap, pool_width)
    score = top_mean(block_sum(pooled, block), top_share)
    return Detection(score, jnp.full((), jnp.nan), pooled)


def spread(values: Float[Array, "n ..."]) -> Float[Array, "..."]:
    """Return the standard deviation over the first axis, never 0.

    sqrt(sum (v - mean)^2 / (N - 1)), at least what rounding makes of values that never
    vary, so that dividing by it gives a number.

    Raises:
      ValueError: if there are fewer than 2 values.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} images: a spread needs at least 2")
    least = ROUNDING * jnp.abs(values).max(0) + ZERO
    return jnp.maximum(values.std(0, ddof=1), least)


def scan_of(given: Given) -> Scan:
    """Return what was measured.

    Raises:
      ValueError: if nothing was.
    """
    if given.scan is None:
        raise ValueError("this detector looks at measurements, and there is no scan")
    return given.scan


def posterior_of(given: Given) -> Posterior:
    """Return the draws of the posterior.

    Raises:
      ValueError: if there are none.
    """
    if given.posterior is None:
        raise ValueError("this detector looks at posterior samples; there are none")
    return given.posterior


def fitted(detector: Detector, law: Law | None) -> Law:
    """Return the law that `detector` holds.

    Raises:
      ValueError: if it was not fitted.
    """
    if law is None:
        name = type(detector).__name__
        raise ValueError(f"{name} judges only after fit(looked) of healthy images")
    return law


def check_range(low: float, high: float, **settings: Any) -> None:
    """Raise a ValueError naming the first number outside [low, high], or infinite.

    A setting is a number or a tuple of them. What is not a Python number, as where jax
    rebuilds a detector with tracers, passes.
    """
    for name, value, number in _numbers(settings):
        if not (low <= number <= high and math.isfinite(number)):
            rule = f"in [{low:g}, {high:g}]" if high < math.inf else f">= {low:g}"
            raise ValueError(f"{name}={value}: must be {rule} and finite")


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
