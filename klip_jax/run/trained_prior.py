"""A prior that is trained: network, loss, what its record and its folder say."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax import hub
from klip_jax.config import build
from klip_jax.data.base import Source
from klip_jax.error_table import denoising_errors
from klip_jax.priors.base import NetworkPrior
from klip_jax.priors.labelled import Labelled
from klip_jax.recipe import Cast, Recipe
from klip_jax.run.card import prior_card, sample_grid

ERROR_LEVELS = tuple(float(s) for s in np.geomspace(0.005, 10.0, 16))
"""Noise levels of the error table, image units."""


class TrainedPrior(NamedTuple):
    """A prior from settings; where its network has `classes`, one that is told them.

    Attributes:
      settings: of the prior.
      net: a flax.linen module.
      image_shape: (H, W, C).
    """

    settings: Mapping[str, Any]
    net: Any
    image_shape: tuple[int, ...]

    @property
    def classes(self) -> int:
        """How many labels its examples have; 0 where they have none."""
        return getattr(self.net, "classes", 0)

    @property
    def net_shape(self) -> tuple[int, ...]:
        """(H, W, C) of what the network sees."""
        return seen_by_network(self.settings, self.image_shape)

    def shapes(self) -> Any:
        """Return the shapes of its parameters."""
        return hub.empty_params(self.net, self.net_shape)

    def init(self, key: jax.Array) -> Any:
        """Return random parameters."""
        zeros = jnp.zeros(self.net_shape), jnp.float32(0)
        return jax.jit(self.net.init)(key, *zeros)

    def loss(
        self, params: Any, examples: Any, key: jax.Array, *, recipe: Recipe
    ) -> tuple[jax.Array, dict]:
        """Return the prior's own loss of a batch; see `training.Loss`."""
        prior = self.prior(params, recipe.dtype)
        if isinstance(prior, Labelled):
            prior = Labelled(prior.prior, recipe.label_dropout)
        law = dict(log_mean=recipe.log_mean, log_std=recipe.log_std)
        return prior.loss(examples, key, **law), {}

    def prior(self, params: Any, dtype: str = "float32") -> NetworkPrior | Labelled:
        """Return the prior of these parameters, which computes in `dtype`."""
        net = self.net if dtype == "float32" else Cast(self.net, dtype)
        prior = build("priors", self.settings, params, net)
        return Labelled(prior) if self.classes else prior

    def examined(self, source: Source, plain: Source) -> Source:
        """Return what the record is about: images as they were trained on."""
        del plain
        return source

    def record(self, params: Any, examples: Mapping[str, Any]) -> dict:
        """Return what the weights say of themselves, besides how they were trained.

        Args:
          params: of the network.
          examples: "train" and "test", each images, or (images, labels).
        """
        prior, levels = self.prior(params), np.array(ERROR_LEVELS)
        errors: dict[str, list[float]] = {}
        for name, some in examples.items():
            images, labels = some if self.classes else (some, None)
            errors[name] = denoising_errors(prior, images, levels).tolist()
            if labels is not None:
                told = denoising_errors(prior, images, levels, labels=labels)
                errors[f"{name}_labelled"] = told.tolist()
        # The estimators use the error on training images: test images stay unseen.
        table = {"levels": list(ERROR_LEVELS), "errors": errors["train"], **errors}
        patches = self.net_shape != self.image_shape
        return {
            "prior": self.settings,
            "errors": table,
            **({"net_shape": list(self.net_shape)} if patches else {}),
        }

    def card(self, record: Mapping[str, Any], sha256: str) -> str:
        """Return the record as markdown for people."""
        return prior_card(record, sha256)

    def pictures(self, path) -> dict[str, bytes]:
        """Return {file name: PNG} of samples of the weights at `path`."""
        trained, _ = hub.load(path)
        return {"samples.png": sample_grid(trained, self.image_shape)}


def seen_by_network(
    prior: Mapping[str, Any], image_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the shape (H, W, C) of what the network of a prior is called with.

    Args:
      prior: settings; a prior of patches has a network of smaller images.
      image_shape: (H, W, C).
    """

    told = build("priors", prior, {}, _Tells())
    x = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
    try:
        jax.eval_shape(told, x, jax.ShapeDtypeStruct((), jnp.float32))
    except _Seen as seen:
        return seen.args[0]
    return tuple(image_shape)


class _Seen(Exception):
    """What `_Tells` was called with."""


class _Tells:
    """A network that only tells what it is called with."""

    def apply(self, params, x, noise_level):
        raise _Seen(x.shape)
