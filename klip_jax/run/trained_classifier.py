"""A classifier that is trained: its network, its loss, what its record says."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax.classifiers.base import Classifier
from klip_jax.classifiers.base_loss import calibration, cross_entropy
from klip_jax.data.base import Source
from klip_jax.recipe import Recipe
from klip_jax.run.card import classifier_card


class TrainedClassifier(NamedTuple):
    """A network that names classes.

    Attributes:
      net: a flax.linen module with `classes`; see `classifiers.base.Classifier`.
      image_shape: (H, W, C).
    """

    net: Any
    image_shape: tuple[int, ...]

    @property
    def classes(self) -> int:
        """How many labels its examples have."""
        return self.net.classes

    def shapes(self) -> Any:
        """Return the shapes of its variables."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def init(self, key: jax.Array) -> Any:
        """Return random parameters, and statistics of nothing."""
        return jax.jit(self.net.init)(key, jnp.zeros(self.image_shape))

    def loss(
        self, variables: Any, examples: Any, key: jax.Array, *, recipe: Recipe
    ) -> tuple[jax.Array, dict]:
        """Return the cross-entropy of a batch; see `training.Loss`."""
        del key  # nothing is drawn
        return cross_entropy(
            self.net,
            variables,
            *examples,
            dtype=recipe.dtype,
            label_smoothing=recipe.label_smoothing,
        )

    def examined(self, source: Source, plain: Source) -> Source:
        """Return what the record is about: images as they are, not augmented."""
        del source
        return plain

    def record(self, variables: Any, examples: Mapping[str, Any]) -> dict:
        """Return what the weights say of themselves, besides how they were trained.

        Args:
          variables: of the network.
          examples: "train" and "test", each (images, labels).
        """
        classifier = Classifier(self.net, variables, self.image_shape)
        quality = {
            name: calibration(classifier, *map(np.asarray, some))
            for name, some in examples.items()
        }
        counts = {name: len(labels) for name, (_, labels) in examples.items()}
        return {"quality": quality, "counts": counts}

    def card(self, record: Mapping[str, Any], sha256: str) -> str:
        """Return the record as markdown for people."""
        return classifier_card(record, sha256)

    def pictures(self, path) -> dict[str, bytes]:
        """Return nothing: a classifier draws no pictures."""
        del path
        return {}
