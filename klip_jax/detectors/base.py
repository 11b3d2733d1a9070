"""What a detector is; the defaults of `types.Detector`.

    looked = detector.look(key, given)     all that is expensive, once an image
    fitted = detector.fit(looked [N])      from in-distribution ones, where it `fits`
    detection = fitted.judge(looked)       cheap: other blocks, laws, combinations

A detector is a frozen `flax.struct.dataclass` of hyper-parameters (and, once fitted, of
arrays) that inherits from `Detector` and writes `look` and `judge`; `base_map` is for
those with a map, `base_fit` for those that are fitted.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from jax import Array

from klip_jax.types import Detection, Given, Posterior, PRNGKey, Scan


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

    def unseen(self, looked: Any, record: Mapping[str, Any]) -> Any:
        """Return what N draws look like to a prior that has not seen them.

        The same correction where the score is no longer a square of errors: a detector
        that fits, or a part of one, is fitted to this and judged on it.
        """
        return looked

    def __call__(self, key: PRNGKey, given: Given) -> Detection:
        """Look at one image and judge it."""
        return self.judge(self.look(key, given))


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
