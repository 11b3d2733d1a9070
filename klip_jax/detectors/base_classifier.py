"""What scores of a classifier share: features and logits of the picture, once."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base import Detector
from klip_jax.types import Detection, Given, PRNGKey


class Seen(NamedTuple):
    """What a classifier makes of a picture.

    Attributes:
      features: what its last layer sees.
      logits: nats up to a constant.
    """

    features: Float[Array, "*n f"]
    logits: Float[Array, "*n k"]


@struct.dataclass
class ClassifierDetector(Detector):
    """Base of those that look once at features and logits; they have no map."""

    needs = ("picture", "classifier")

    @property
    def classifier_calls(self) -> int:
        return 1

    def look(self, key: PRNGKey, given: Given) -> Seen:
        """Return the features and the logits of the picture; one classifier call."""
        classifier = classifier_of(given)
        features = classifier.features(given.picture)
        return Seen(features, classifier.of_features(features))


def classifier_of(given: Given) -> Any:
    """Return the classifier, as `classifiers.base.Classifier`.

    Raises:
      ValueError: if there is none.
    """
    if given.classifier is None:
        raise ValueError("this detector asks a classifier, and there is none")
    return given.classifier


def check_classes(prior: Any, count: int) -> None:
    """Check that a prior knows the classes that a classifier names.

    Args:
      prior: a `types.Conditional`; one that does not say how many it knows passes.
      count: of the classifier's classes.

    Raises:
      ValueError: if they are not as many.
    """
    known = getattr(prior, "classes", count)
    if known != count:
        raise ValueError(
            f"the classifier names {count} classes, but the prior knows {known}: give "
            "classifier.weights and prior.weights of the same data"
        )


def without_map(score: Float[Array, ""]) -> Detection:
    """Return the detection of a score that is of the whole image, and exact."""
    return Detection(score, jnp.full((), jnp.nan))
