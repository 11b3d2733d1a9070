"""The driver of every chain: one `lax.scan` over noise levels.

Reducers ride in the carry, so memory does not grow with the number of levels, and so
does the index of the first step whose state is not finite: checking inside `jit` would
cost more than the step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.types import Denoiser, Likelihood, Reducer, Sampler


class Sampled(NamedTuple):
    """What a chain returns.

    Attributes:
      x: the last state [H, W, C].
      reduced: what the reducer made of the steps.
      first_bad_step: index of the first step that gave a non-finite state, -1 if none.
    """

    x: Array
    reduced: Any
    first_bad_step: Array


def keep_nothing() -> Reducer:
    """Return a reducer that keeps nothing of the steps."""
    return Reducer(lambda shape: (), lambda acc, info: acc, lambda acc: acc)


def sample(
    key: Array,
    sampler: Sampler,
    denoiser: Denoiser,
    likelihood: Likelihood,
    sigmas: Array,
    shape: tuple[int, ...],
    reducer: Reducer | None = None,
    *,
    start: Array | None = None,
) -> Sampled:
    """Run one chain down the noise levels.

    Args:
      key: a `jax.random.key`; step i uses fold_in(key, i + 1).
      sampler: see `types.Sampler`.
      denoiser: the prior.
      likelihood: what was measured; `NoMeasurement()` draws from the prior.
      sigmas: noise levels [T + 1], decreasing, for T steps.
      shape: (H, W, C).
      reducer: folded over the steps; None keeps nothing.
      start: the state at sigmas[0] [H, W, C]; None draws it by `sampler.init`.

    Returns:
      A `Sampled`.
    """
    reducer = keep_nothing() if reducer is None else reducer

    def step(carry, inputs):
        x, reduced, bad = carry
        i, sigma, sigma_next = inputs
        key_step = jax.random.fold_in(key, i + 1)
        x, info = sampler.step(key_step, x, denoiser, likelihood, sigma, sigma_next)
        bad = jnp.where((bad < 0) & ~jnp.isfinite(x).all(), i, bad)
        return (x, reducer.update(reduced, info), bad), None

    x = start
    if x is None:
        x = sampler.init(jax.random.fold_in(key, 0), shape, sigmas[0])
    carry = (x, reducer.init(shape), jnp.int32(-1))
    steps = jnp.arange(len(sigmas) - 1, dtype=jnp.int32)
    (x, reduced, bad), _ = jax.lax.scan(step, carry, (steps, sigmas[:-1], sigmas[1:]))
    return Sampled(x, reducer.finalize(reduced), bad)
