"""What a detector is, and what those with a map share.

    looked = detector.look(key, given)     all that is expensive, once an image
    fitted = detector.fit(looked [N])      from in-distribution ones, where it `fits`
    detection = fitted.judge(looked)       cheap: other blocks, laws, combinations

A detector is a frozen `flax.struct.dataclass` of hyper-parameters (and, once fitted, of
arrays) that inherits from `Detector` and writes `look` and `judge`. The score of a map
is the mean of its largest blocks.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax.blocks import block_sum, top_mean
from klip_jax.filters import pool
from klip_jax.types import (
    Denoiser,
    Detection,
    Given,
    Heatmap,
    Posterior,
    PRNGKey,
    Scalar,
    Scan,
)


# A spread this small beside the value itself is float32's, not the images'.
_ROUNDING = 1e-5
_ZERO = 1e-12


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

    def look(self, key: PRNGKey, given: Given) -> Any:
        """Return what was seen, a pytree of arrays. Pure: jit, vmap, shard it."""
        raise NotImplementedError(f"{type(self).__name__} does not define look")

    def judge(self, looked: Any) -> Detection:
        """Turn what was seen into a `Detection`, without a network. Pure."""
        raise NotImplementedError(f"{type(self).__name__} does not define judge")

    def fit(self, looked: Any) -> Self:
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
    least = _ROUNDING * jnp.abs(values).max(0) + _ZERO
    return jnp.maximum(values.std(0, ddof=1), least)


def denoiser_of(given: Given) -> Denoiser:
    """Return the prior; one that knows classes only, at its null label."""
    prior = given.prior
    return prior if callable(prior) else prior.given(None)


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
