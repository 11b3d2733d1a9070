"""Reconstruction error from measurements: does the prior's image explain them?

    x~ = a quick inversion of y (filtered back-projection in CT),
    x^_s = the chain from x~ + s z down to 0, alone or guided by y,
    sinogram domain: |A^T (A x^_s - y)|^2 and mean |A x^_s - y|^2,
    image domain:    |x^_s - x~|^2.

The guided chain keeps what y says, so what is left in the sinogram is what the prior
refuses; it can also draw the anomaly, and then the error is small. Hence the mix of
both chains. As in DDPM-OOD, levels are compared by z-scores (`detectors.base`).

Departures: one DDIM of few steps for both chains, data consistency by the conditional
Gaussian, any linear operator. The paper has scalar errors; A^T makes a map of the
sinogram's, in squared units of A^T y. The mix is a plain one of the two errors, with a
weight that the caller gives.

Reference: Demircan-Tureyen, Lucka and van Leeuwen 2024, arXiv 2411.06308.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.detectors.base import reconstruct
from klip_jax.guidance.base import NoMeasurement
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.operators.base import Operator
from klip_jax.types import Denoiser

RECONSTRUCTIONS = ("unconditional", "conditional")


class Errors(NamedTuple):
    """Errors of the reconstructions; the leading axis of 2 is `RECONSTRUCTIONS`.

    Attributes:
      sinogram: |A^T (A x^ - y)|^2 [2, L, H, W], summed over channels.
      image: |x^ - x~|^2 [2, L, H, W], squared image units, summed over channels.
      misfit: mean |A x^ - y|^2 over the measurements [2, L], squared units of y; the
        paper's score in the sinogram domain.
    """

    sinogram: Array
    image: Array
    misfit: Array


def errors(
    key: Array,
    y: Array,
    operator: Operator,
    noise_std: Array,
    prior: Denoiser,
    levels: Array,
    *,
    steps: int = 10,
) -> Errors:
    """Return the errors of both reconstructions from each noise level.

    Args:
      key: level l uses fold_in(key, l), the same noise for both reconstructions.
      y: measurements [operator.out_shape].
      operator: A.
      noise_std: of y, > 0.
      prior: a denoiser with `variance`.
      levels: noise levels to start from [L], > 0, image units, in any order.
      steps: of each chain, >= 1.

    Returns:
      An `Errors`.

    Raises:
      ValueError: if there is no step.

    Reference: Demircan-Tureyen et al. 2024; see the module for departures.
    """
    naive = operator.naive_inverse(y)
    likelihoods = (NoMeasurement(), ConditionalGaussian(operator, y, noise_std))

    def at(inputs):
        index, sigma = inputs
        key_level = jax.random.fold_in(key, index)
        both = [
            reconstruct(key_level, naive, prior, likelihood, sigma, steps=steps)
            for likelihood in likelihoods
        ]
        return jax.vmap(compare)(jnp.stack(both))

    def compare(back):
        misfit = operator(back) - y
        return Errors(
            jnp.sum(operator.adjoint(misfit) ** 2, -1),
            jnp.sum((back - naive) ** 2, -1),
            jnp.mean(jnp.abs(misfit) ** 2),
        )

    found = jax.lax.map(at, (jnp.arange(len(levels)), levels))
    return jax.tree.map(lambda e: jnp.moveaxis(e, 1, 0), found)


def mixed(found: Errors, weight: float) -> Errors:
    """Return (1 - weight) * unconditional + weight * conditional, without axis [2].

    Args:
      found: of `errors`.
      weight: of the conditional reconstruction, in [0, 1].
    """
    return jax.tree.map(lambda e: (1 - weight) * e[0] + weight * e[1], found)


def network_calls(levels: int, *, steps: int = 10) -> int:
    """Return the network calls an image costs: 2 * levels * steps."""
    return len(RECONSTRUCTIONS) * levels * steps
