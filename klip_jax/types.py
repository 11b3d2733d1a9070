"""The vocabulary of `klip_jax` on one screen.

Everything lives in one coordinate, x_sigma = x0 + sigma * z with z ~ N(0, I) (Karras et
al. 2022): a variance-preserving state is divided by alpha, and sigma := sigma_t /
alpha_t. In it a prior is a denoiser D(x, sigma) = E[x0 | x_sigma = x], its score is
(D - x) / sigma^2, and what the measurements add is

    KL(p(x|y) || p(x)) = 1/2 * integral E|| grad log p(y | x_sigma) ||^2 d(sigma^2).

Ranges: images are float32 [H, W, C] in [0, 1] outside the networks; sigma has the unit
of the image; y and noise_std have the operator's own unit. A function takes ONE image;
the caller vmaps. Whatever holds arrays (denoisers, operators, likelihoods) is a pytree
and enters `jit` as an argument.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jax import Array


@runtime_checkable
class Denoiser(Protocol):
    """A prior over images: the mean D(x, sigma) = E[x0 | x0 + sigma z = x]."""

    def __call__(self, x: Array, sigma: Array, *, key: Array | None = None) -> Array:
        """Denoise `x` [H, W, C] at noise level `sigma` (scalar, image units)."""
        ...


@runtime_checkable
class LinearOperator(Protocol):
    """A scanner: y = A x + n with n ~ N(0, noise_std^2 I)."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    def __call__(self, x: Array) -> Array:
        """Apply A to `x` [in_shape]; returns [out_shape]."""
        ...

    def adjoint(self, y: Array) -> Array:
        """Apply the conjugate transpose of A to `y` [out_shape]; returns [in_shape]."""
        ...

    def solve_gram(self, r: Array, variance: Array, noise_var: Array) -> Array:
        """Return u with (variance * A A^T + noise_var * I) u = r [out_shape]."""
        ...


@runtime_checkable
class Likelihood(Protocol):
    """An approximation of log p(y | x_sigma): a pytree with operator, y, noise_std."""

    operator: LinearOperator
    y: Array
    noise_std: Array

    def score(self, denoiser: Denoiser, x: Array, sigma: Array) -> tuple[Array, Array]:
        """Return (x0, g): the denoised image and g = grad_x log p(y | x_sigma = x)."""
        ...


class StepInfo(NamedTuple):
    """What one sampler step did, for the reducers.

    Attributes:
      sigma: noise level before the step, scalar.
      sigma_next: noise level after it, scalar.
      x0: the prior's denoised image [H, W, C].
      shift: displacement the measurement caused [H, W, C], in image units.
      noise_var: variance of the step's own Gaussian noise, scalar; 0 where the step is
        deterministic, and then it has no path KL.
    """

    sigma: Array
    sigma_next: Array
    x0: Array
    shift: Array
    noise_var: Array


class Sampler(NamedTuple):
    """Two pure functions; factories close over hyper-parameters (floats) only.

    Attributes:
      init: (key, shape, sigma) -> x, a draw from N(0, sigma^2 I).
      step: (key, x, denoiser, likelihood, sigma, sigma_next) -> (x, StepInfo).
    """

    init: Callable[[Array, tuple[int, ...], Array], Array]
    step: Callable[
        [Array, Array, Denoiser, Likelihood, Array, Array], tuple[Array, StepInfo]
    ]


class Reducer(NamedTuple):
    """A fold over the steps of a chain, carried by the scan so that memory is constant.

    Attributes:
      init: (shape) -> accumulator.
      update: (accumulator, StepInfo) -> accumulator.
      finalize: (accumulator) -> result.
    """

    init: Callable[[tuple[int, ...]], Any]
    update: Callable[[Any, StepInfo], Any]
    finalize: Callable[[Any], Any]


class Detection(NamedTuple):
    """What a detector says of one image; bigger is more out-of-distribution.

    Attributes:
      score: scalar.
      stderr: Monte Carlo standard error of `score`, scalar.
      heatmap: where the evidence lies [H, W].
    """

    score: jax.Array
    stderr: jax.Array
    heatmap: jax.Array
