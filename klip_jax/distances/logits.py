"""Distances of two images as a classifier names them, from their logits [K].

    l1             sum_k |l_a - l_b|_k          (DiffGuard on CIFAR-10)
    l2             |l_a - l_b|
    normalised_l1  sum_k |n(l_a) - n(l_b)|_k,   n(l) = l / (|l| + 1e-10)   (DiffNB)

Reference: Gao et al. 2023 (DiffGuard), section 4.1; Liu et al. 2022 (DiffNB) and its
release.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

_SMALL = 1e-10


def l1(a: Float[Array, " k"], b: Float[Array, " k"]) -> Float[Array, ""]:
    """Return sum_k |a - b|_k, nats."""
    return jnp.sum(jnp.abs(a - b))


def l2(a: Float[Array, " k"], b: Float[Array, " k"]) -> Float[Array, ""]:
    """Return |a - b|, nats."""
    return jnp.linalg.norm(a - b)


def normalised_l1(a: Float[Array, " k"], b: Float[Array, " k"]) -> Float[Array, ""]:
    """Return the l1 distance of the directions of two vectors, without unit."""
    return l1(_direction(a), _direction(b))


def _direction(x):
    return x / (jnp.linalg.norm(x) + _SMALL)
