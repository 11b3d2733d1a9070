"""What a classifier is trained by, and what it is worth: cross-entropy and calibration.

    L = -mean_b sum_k q_bk log softmax(logits_b)_k,   q = (1 - e) 1[k = y] + e / K,

e the label smoothing. A network with batch normalisation takes the statistics of the
batch meanwhile, and moves its running ones.

Reference: Szegedy et al. 2016, section 7; Ioffe and Szegedy 2015, algorithm 2; Guo et
al. 2017, section 2 (confidence against accuracy).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from klip_jax.classifiers.base import Classifier
from klip_jax.recipe import cast

_AT_ONCE = 100


def cross_entropy(
    net: nn.Module,
    variables: Any,
    images: Float[Array, "b h w c"],
    labels: Int[Array, " b"],
    *,
    dtype: str = "float32",
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], dict]:
    """Return the loss of a batch, nats, and the statistics that it moved.

    Args:
      net: maps an image to logits; one that has `batch_axis`, see `resnet.ResNet`, is
        told that it is trained.
      variables: {"params"}, and {"batch_stats"} where it has statistics.
      images: in [0, 1].
      labels: their classes, from 0.
      dtype: of the network's arithmetic; statistics and loss are float32.
      label_smoothing: e, in [0, 1).

    Returns:
      (loss, {"batch_stats"}, or {} where it has none).
    """
    low = {**variables, "params": cast(variables["params"], dtype)}
    if hasattr(net, "batch_axis"):
        net = net.copy(training=True, batch_axis="batch")

    def apply(image):
        return net.apply(low, image.astype(dtype), mutable=["batch_stats"])

    # All images have the statistics of the batch: one of them is enough.
    logits, moved = jax.vmap(apply, axis_name="batch", out_axes=(0, None))(images)
    logits = logits.astype(jnp.float32)
    shares = optax.smooth_labels(
        jax.nn.one_hot(labels, logits.shape[1]), label_smoothing
    )
    return optax.softmax_cross_entropy(logits, shares).mean(), dict(moved)


def calibration(
    classifier: Classifier,
    images: Float[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
) -> dict[str, float]:
    """Return how often a classifier is right, and how sure it is of what it says.

    Args:
      classifier: any.
      images: in [0, 1].
      labels: their classes.

    Returns:
      accuracy; confidence, the mean probability of the class that it names; and
      cross_entropy, nats. Confidence above accuracy is overconfidence.

    Reference: Guo et al. 2017, section 2.
    """

    @jax.jit
    def log_probabilities(classifier, images):
        return jax.nn.log_softmax(jax.vmap(classifier.logits)(images))

    parts = [
        np.asarray(log_probabilities(classifier, images[i : i + _AT_ONCE]))
        for i in range(0, len(images), _AT_ONCE)
    ]
    log_p = np.concatenate(parts)
    right = log_p[np.arange(len(labels)), labels]
    return {
        "accuracy": float(np.mean(log_p.argmax(-1) == labels)),
        "confidence": float(np.exp(log_p.max(-1)).mean()),
        "cross_entropy": float(-right.mean()),
    }
