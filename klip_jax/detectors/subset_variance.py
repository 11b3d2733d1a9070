"""Variance over random subsets of the measurements: does the answer hold still?

    V = 1/(K - 1) sum_k |x^_k - mean|^2,   x^_k reconstructed from m_k A and m_k y,

m_k a random diagonal of 0 and 1 that keeps a share of the measurements. Where the prior
knows the image, any subset gives the same; where it does not, the image follows the
measurements that are left. Nothing is calibrated.

A dropped measurement has a forward operator of zero and the value zero: its residual is
zero at any image, so it has no say, exactly as if its row were not there.

Departures: a diffusion prior and DDIM with the conditional Gaussian in place of a
learned proximal network. All chains start from the same noise, so that as in the paper
only the subset varies.

Reference: Kim and Fridovich-Keil 2025, arXiv 2510.10947.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.operators.base import Operator
from klip_jax.sample import sample
from klip_jax.samplers.ddim import ddim
from klip_jax.types import Denoiser, Sampler


class Subset(Operator):
    """keep * A: some rows of an operator, the others zero.

    `solve_gram` is conjugate gradients, stopped early: the exact solution of A does not
    solve the subset's, and the prior's error is larger than the iteration's.

    Args:
      inner: A.
      keep: 1 where a measurement stays, 0 where it is dropped [inner.out_shape].
    """

    def __init__(self, inner: Operator, keep: Array):
        self.inner, self.keep = inner, keep
        self.in_shape, self.out_shape = inner.in_shape, inner.out_shape
        self.out_dtype = inner.out_dtype

    def __call__(self, x: Array) -> Array:
        return self.keep * self.inner(x)

    def adjoint(self, y: Array) -> Array:
        return self.inner.adjoint(self.keep * y)

    def solve_gram(
        self,
        r: Array,
        variance: Array,
        noise_var: Array,
        *,
        tol: float = 1e-3,
        maxiter: int = 100,
    ) -> Array:
        return super().solve_gram(r, variance, noise_var, tol=tol, maxiter=maxiter)


class Reconstructions(NamedTuple):
    """Moments of the K reconstructions.

    Attributes:
      variance: the map [H, W], squared image units, summed over channels.
      mean: [H, W, C], image units.
    """

    variance: Array
    mean: Array


def reconstructions(
    key: Array,
    y: Array,
    operator: Operator,
    noise_std: Array,
    prior: Denoiser,
    sigmas: Array,
    *,
    subsets: int = 8,
    share: float = 0.5,
    axis: int | None = 0,
    sampler: Sampler | None = None,
) -> Reconstructions:
    """Reconstruct one image from K random subsets of its measurements.

    Args:
      key: split into one that all chains share and one for the subsets.
      y: measurements [operator.out_shape].
      operator: A.
      noise_std: of y, > 0.
      prior: a denoiser with `variance`.
      sigmas: noise levels of the chains [T + 1], decreasing, the last 0, image units.
      subsets: K >= 2.
      share: of the measurements that a subset keeps, in (0, 1).
      axis: of y along which whole slices stay or go (0: the views of CT); None takes
        each measurement alone. With few slices, as of coils, subsets coincide, and
        their variance is 0.
      sampler: of every chain, with one network call a step; None takes `ddim()`, which
        draws nothing. `resampling()` errs less; its draws are the same for all subsets.

    Returns:
      A `Reconstructions`.

    Raises:
      ValueError: if there are under 2 subsets, or `share` keeps nothing or everything.

    Reference: Kim and Fridovich-Keil 2025; see the module for departures.
    """
    if subsets < 2:
        raise ValueError(f"subsets={subsets}: a variance needs at least 2")

    sampler = ddim() if sampler is None else sampler
    key_chain, key_subsets = jax.random.split(key)
    real = jnp.finfo(y.dtype).dtype

    def chain(k):
        key_k = jax.random.fold_in(key_subsets, k)
        keep = random_subset(key_k, y.shape, share=share, axis=axis)
        subset = Subset(operator, keep.astype(real))
        # A `where`, so that not even a NaN of a dropped measurement gets through.
        likelihood = ConditionalGaussian(subset, jnp.where(keep, y, 0), noise_std)
        shape = operator.in_shape
        return sample(key_chain, sampler, prior, likelihood, sigmas, shape).x

    x = jax.vmap(chain)(jnp.arange(subsets))
    return Reconstructions(jnp.sum(x.var(0, ddof=1), -1), x.mean(0))


def random_subset(
    key: Array, shape: tuple[int, ...], *, share: float, axis: int | None
) -> Array:
    """Draw which measurements stay [shape] bool, exactly round(share * n) of n.

    Raises:
      ValueError: if that is none or all.
    """
    n = math.prod(shape) if axis is None else shape[axis]
    count = round(share * n)
    if not 0 < count < n:
        raise ValueError(
            f"share={share} keeps {count} of {n} measurements along axis={axis}; it "
            "must keep some and drop some"
        )
    keep = jax.random.permutation(key, n) < count
    if axis is None:
        return keep.reshape(shape)
    ones = [1] * len(shape)
    ones[axis] = n
    return jnp.broadcast_to(keep.reshape(ones), shape)


def network_calls(steps: int, *, subsets: int = 8) -> int:
    """Return the network calls an image costs: subsets * steps."""
    return subsets * steps
