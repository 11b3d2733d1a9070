"""How sure a classifier is: scores of its logits l [K], with p = softmax(l).

    MSP         1 - max_k p_k                            (confidence: max_k p_k)
    MaxLogit    -max_k l_k
    Energy      -T log sum_k exp(l_k / T)
    GEN         sum over the M largest p_k of (p_k (1 - p_k))^gamma

Bigger is more out-of-distribution. None is fitted, and none has a map. 1 - max p is
the sum of the other probabilities, in logarithms: of a classifier that is nearly
certain it is 1e-9, where one minus a float32 is 0 of all its images.

Reference: Hendrycks and Gimpel 2017 (MSP); Hendrycks et al. 2022 (MaxLogit); Liu et al.
2020, eq. 4 (Energy); Liu, Lochman and Zach 2023, eq. 3 (GEN); docs/theory.md, section
12.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.detectors.base_classifier import ClassifierDetector, Seen, without_map
from klip_jax.detectors.base_settings import check_count, check_positive, check_range
from klip_jax.types import Detection, Scalar


@struct.dataclass
class MSP(ClassifierDetector):
    """The probability that the picture is of another class than it looks like."""

    def judge(self, looked: Seen) -> Detection:
        return without_map(jnp.exp(_doubt(looked.logits)))


@struct.dataclass
class MaxLogit(ClassifierDetector):
    """The negative of the largest logit."""

    def judge(self, looked: Seen) -> Detection:
        return without_map(-looked.logits.max())


@struct.dataclass
class Energy(ClassifierDetector):
    """The free energy of the logits.

    Attributes:
      temperature: T > 0, in the unit of the logits.
    """

    temperature: Scalar = 1.0

    def __post_init__(self):
        check_positive(temperature=self.temperature)

    def judge(self, looked: Seen) -> Detection:
        t = self.temperature
        return without_map(-t * jax.nn.logsumexp(looked.logits / t))


@struct.dataclass
class GEN(ClassifierDetector):
    """The generalised entropy of the largest probabilities.

    Attributes:
      gamma: in (0, 1]; the smaller, the more the small probabilities count.
      largest: M, how many probabilities count; of fewer classes all.
    """

    gamma: Scalar = 0.1
    largest: int = struct.field(pytree_node=False, default=100)

    def __post_init__(self):
        check_positive(gamma=self.gamma)
        check_range(0.0, 1.0, gamma=self.gamma)
        check_count(largest=self.largest)

    def judge(self, looked: Seen) -> Detection:
        log_p = jax.nn.log_softmax(looked.logits)
        log_others = jnp.log1p(-jnp.exp(log_p))
        # The largest p may be 1 in float32; the others are at most 1/2.
        log_others = log_others.at[log_p.argmax()].set(_doubt(looked.logits))
        order = jnp.argsort(log_p)[-self.largest :]
        return without_map(jnp.exp(self.gamma * (log_p + log_others))[order].sum())


def _doubt(logits: Float[Array, " k"]) -> Float[Array, ""]:
    """Return log(1 - max_k p_k), the logarithm of the sum of the others."""
    top = jnp.arange(len(logits)) == logits.argmax()
    others = jax.nn.logsumexp(jnp.where(top, -jnp.inf, logits))
    return others - jax.nn.logsumexp(logits)
