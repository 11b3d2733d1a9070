"""How to train: the numbers of it, the optimiser and the arithmetic.

Adam with clipped gradients, or for a classifier SGD with Nesterov's momentum, and a
learning rate that follows a cosine.

Reference: Karras et al. 2022, table 1; Kingma and Ba 2015; Loshchilov and Hutter 2019,
algorithm 2 (weight decay beside Adam); Sutskever et al. 2013, eqs. 3 and 4 (Nesterov);
Szegedy et al. 2016, section 7 (label smoothing).
"""

from typing import Any, NamedTuple

import jax
import optax
from jax import Array

DTYPES = ("float32", "bfloat16")
OPTIMISERS = ("adam", "sgd")
MOMENTUM = 0.9


class Recipe(NamedTuple):
    """How to train.

    Attributes:
      steps: optimiser steps.
      batch: images a step.
      learning_rate: its peak, reached after `warmup` steps, then a cosine to zero.
      warmup: steps.
      ema: decay of the averaged weights, in [0, 1).
      log_mean, log_std: law of ln sigma in the network's range.
      seed: of everything random, in [0, 2^32).
      dtype: of the network's arithmetic, "float32" or, about twice as fast on a GPU or
        TPU, "bfloat16"; weights, loss and averages are float32.
      checkpoint_every: steps between checkpoints.
      keep: how many of the newest checkpoints are kept; 0 keeps all.
      optimiser: "adam", its gradients clipped to norm 1, or "sgd", Nesterov's momentum
        of 0.9.
      weight_decay: share of a weight that is lost in a step of learning rate 1, >= 0;
        of kernels, not of biases and norms.
      label_dropout: probability in [0, 1) that a prior is not told the class.
      label_smoothing: share in [0, 1) of a class that all classes get, in the loss of a
        classifier.
    """

    steps: int = 4000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 200
    ema: float = 0.999
    log_mean: float = -1.2
    log_std: float = 1.2
    seed: int = 0
    dtype: str = "float32"
    checkpoint_every: int = 100
    keep: int = 2
    optimiser: str = "adam"
    weight_decay: float = 0.0
    label_dropout: float = 0.1
    label_smoothing: float = 0.0

    def check(self) -> None:
        """Raise a ValueError naming the first number that cannot work."""
        rules = {
            f"steps={self.steps}: need at least 1": self.steps < 1,
            f"batch={self.batch}: need at least 1": self.batch < 1,
            f"learning_rate={self.learning_rate}: must be positive": not (
                self.learning_rate > 0
            ),
            f"warmup={self.warmup}: must be >= 0": self.warmup < 0,
            f"ema={self.ema}: must be in [0, 1)": not 0 <= self.ema < 1,
            f"log_std={self.log_std}: must be positive": not self.log_std > 0,
            f"dtype={self.dtype!r}: must be one of {DTYPES}": self.dtype not in DTYPES,
            f"checkpoint_every={self.checkpoint_every}: need at least 1": (
                self.checkpoint_every < 1
            ),
            f"keep={self.keep}: must be >= 0": self.keep < 0,
            f"seed={self.seed}: must be in [0, 2^32)": not 0 <= self.seed < 2**32,
            f"optimiser={self.optimiser!r}: must be one of {OPTIMISERS}": (
                self.optimiser not in OPTIMISERS
            ),
            f"weight_decay={self.weight_decay}: must be >= 0": not (
                self.weight_decay >= 0
            ),
        }
        for name in ("label_dropout", "label_smoothing"):
            value = getattr(self, name)
            rules[f"{name}={value}: must be in [0, 1)"] = not 0 <= value < 1
        for message, broken in rules.items():
            if broken:
                raise ValueError(f"train.recipe: {message}")


class Cast(NamedTuple):
    """A network that computes in another dtype, from and to float32.

    Attributes:
      net: a flax.linen module that computes in the dtype it is given.
      dtype: one of `DTYPES`.
    """

    net: Any
    dtype: str

    @property
    def classes(self) -> int:
        """How many classes the network is told; 0 for none."""
        return getattr(self.net, "classes", 0)

    def apply(
        self, params: Any, x: Array, noise_level: Array, label: Array | None = None
    ) -> Array:
        """Return what the network gives, in the dtype of `x`."""
        low = cast(params, self.dtype)
        told = () if label is None else (label,)
        y = self.net.apply(low, x.astype(self.dtype), noise_level, *told)
        return y.astype(x.dtype)


def cast(params: Any, dtype: str) -> Any:
    """Return every array of a tree in `dtype`."""
    return jax.tree.map(lambda a: a.astype(dtype), params)


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """Return the recipe's optimiser with its learning-rate schedule."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, recipe.learning_rate, recipe.warmup, max(recipe.steps, recipe.warmup + 1)
    )
    if recipe.optimiser == "sgd":
        own = optax.sgd(schedule, MOMENTUM, nesterov=True)
        decay = optax.add_decayed_weights(recipe.weight_decay, _kernels)
        return optax.chain(decay, own)
    own = optax.adam(schedule)
    if recipe.weight_decay:
        own = optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=_kernels)
    return optax.chain(optax.clip_by_global_norm(1.0), own)


def _kernels(params):
    return jax.tree.map(lambda a: a.ndim > 1, params)
