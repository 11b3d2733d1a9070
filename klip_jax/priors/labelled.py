"""A prior of a network that knows classes: one denoiser for each label.

    D(x, sigma | y),    and of the null label D(x, sigma) = E over y,

both from one network, whose third argument is the label; in training the label of an
image is dropped with a probability p, so that it learns both. Any prior of a network
will do (`edm.EDM`, `epsilon.Epsilon`, ...): the label rides beside the parameters, and
what wraps the network into a denoiser does not know of it.

Reference: Ho and Salimans 2022, algorithm 1 (the label is dropped); docs/theory.md,
section 1.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from klip_jax import struct
from klip_jax.priors.base import NetworkPrior, stratified_levels
from klip_jax.types import Image, PRNGKey, Scalar


@struct.dataclass
class Labelled:
    """A `types.Conditional`: `.given(label)` is a denoiser; itself, of the null label.

    Attributes:
      prior: of a network with `classes`; `net.apply(params, x, noise_level, label)`,
        where `classes` is the null label. Its table of errors holds for every label.
      label_dropout: p, probability in [0, 1) that `loss` drops a label.

    Raises:
      ValueError: if the network has no classes, or p is outside [0, 1).

    Reference: Ho and Salimans 2022, section 3.2.
    """

    prior: NetworkPrior
    label_dropout: Scalar = 0.1

    def __post_init__(self):
        if not getattr(self.prior.net, "classes", 0):
            raise ValueError(
                f"{type(self.prior.net).__name__}: a network without classes; use its "
                "prior as it is"
            )
        p = self.label_dropout
        if isinstance(p, int | float) and not 0 <= p < 1:
            raise ValueError(f"label_dropout={p}: must lie in [0, 1)")

    @property
    def params(self) -> Any:
        """The network's parameters."""
        return self.prior.params

    @property
    def classes(self) -> int:
        """How many labels there are, the null label not counted."""
        return self.prior.net.classes

    def given(self, label: Int[Array, ""] | int | None) -> NetworkPrior:
        """Return the denoiser of one class.

        Args:
          label: 0 .. classes - 1; None, or `classes`, is the null label.

        Raises:
          ValueError: if it is a number outside them, or the null label where the
            network has none.
        """
        label = self.classes if label is None else label
        if isinstance(label, int):
            self._check(label)
        params = {"weights": self.prior.params, "label": jnp.asarray(label, jnp.int32)}
        net = OfOneLabel(self.prior.net)
        return dataclasses.replace(self.prior, params=params, net=net)

    def __call__(self, x: Image, sigma: Scalar) -> Image:
        """Return E[x0 | x_sigma = x] of all classes; see `types.Denoiser`."""
        return self.given(None)(x, sigma)

    def variance(self, sigma: Scalar) -> Scalar:
        """Return the expected squared error per pixel; see `types.Denoiser`."""
        return self.prior.variance(sigma)

    def loss(
        self,
        examples: tuple[Float[Array, "b h w c"], Int[Array, " b"]],
        key: PRNGKey,
        *,
        log_mean: Scalar,
        log_std: Scalar,
    ) -> Float[Array, ""]:
        """Return the mean denoising loss of a batch, some labels dropped.

        Args:
          examples: images in [0, 1], and their labels.
          key: of the levels, the noise, and which labels are dropped.
          log_mean, log_std: law of ln sigma in the network's range.
        """
        images, labels = examples
        n, (key_drop, key_sigma, key_noise) = len(images), jax.random.split(key, 3)
        law = dict(log_mean=log_mean, log_std=log_std)
        log_sigma = jnp.log(stratified_levels(key_sigma, n, **law))
        dropped = jax.random.bernoulli(key_drop, self.label_dropout, labels.shape)
        labels = jnp.where(dropped, self.classes, labels)

        def of_one(image, label, log_sigma, key):
            # One level is a law without width.
            law = dict(log_mean=log_sigma, log_std=0.0)
            return self.given(label).loss(image[None], key, **law)

        keys = jax.random.split(key_noise, n)
        return jnp.mean(jax.vmap(of_one)(images, labels, log_sigma, keys))

    def _check(self, label):
        if not 0 <= label <= self.classes:
            raise ValueError(
                f"label={label}: must be one of 0 .. {self.classes - 1}, or None for "
                "no class"
            )
        if label == self.classes and not getattr(self.prior.net, "null_class", True):
            raise ValueError(
                f"label=None: this network was trained with a class always; give one "
                f"of 0 .. {self.classes - 1}"
            )


class OfOneLabel(NamedTuple):
    """A network of one label, which is among its parameters.

    Attributes:
      net: a flax.linen module; `net.apply(weights, x, noise_level, label)`.
    """

    net: Any

    def apply(self, params: Any, x: Image, noise_level: Scalar) -> Array:
        """Return what the network gives for {"weights", "label"}."""
        return self.net.apply(params["weights"], x, noise_level, params["label"])
