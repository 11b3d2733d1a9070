"""The driver of every chain: one `lax.scan` over noise levels.

Reducers ride in the carry, so memory does not grow with the number of levels, and so
does the index of the first step whose state is not finite: checking inside `jit` would
cost more than the step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from klip_jax.guidance.none import NoGuidance
from klip_jax.types import Denoiser, Guidance, Image, PRNGKey, Reducer, Sampler

NOTHING = NoGuidance()


class Sampled(NamedTuple):
    """What a chain returns.

    Attributes:
      x: the last state, image units.
      reduced: what the reducer made of the steps.
      first_bad_step: index of the first step that gave a non-finite state, -1 if none.
    """

    x: Image
    reduced: Any
    first_bad_step: Int[Array, ""]


def keep_nothing() -> Reducer:
    """Return a reducer that keeps nothing of the steps."""
    return Reducer(lambda shape: (), lambda acc, info: acc, lambda acc: acc)


def sample(
    key: PRNGKey,
    sampler: Sampler,
    denoiser: Denoiser,
    sigmas: Float[Array, " t"],
    shape: tuple[int, ...],
    *,
    guidance: Guidance = NOTHING,
    scan: Any = None,
    reducer: Reducer | None = None,
    start: Image | None = None,
) -> Sampled:
    """Run one chain down the noise levels. Pure: jit it, vmap it over keys.

    Args:
      key: step i uses fold_in(key, i + 1), the first state fold_in(key, 0).
      sampler: see `types.Sampler`.
      denoiser: the prior.
      sigmas: noise levels [T + 1], decreasing, for T steps, image units.
      shape: (H, W, C).
      guidance: how the measurements act; `NoGuidance()` draws from the prior.
      scan: what was measured; None where nothing was.
      reducer: folded over the steps; None keeps nothing.
      start: the state at sigmas[0]; None draws it by `sampler.init`.

    Returns:
      A `Sampled`.

    >>> import jax
    >>> from klip_jax import sde
    >>> from klip_jax.priors.analytic import Gaussian
    >>> from klip_jax.samplers.heun import Heun
    >>> prior = Gaussian(jnp.zeros((2, 2, 1)), jnp.eye(4), jnp.ones(4))
    >>> sigmas = sde.karras_levels(10, 0.01, 20.0)
    >>> sample(jax.random.key(0), Heun(), prior, sigmas, (2, 2, 1)).x.shape
    (2, 2, 1)
    """
    reducer = keep_nothing() if reducer is None else reducer

    def step(carry, inputs):
        x, reduced, bad = carry
        i, sigma, sigma_next = inputs
        key_step = jax.random.fold_in(key, i + 1)
        given = denoiser, guidance, scan, sigma, sigma_next
        x, info = sampler.step(key_step, x, *given)
        bad = jnp.where((bad < 0) & ~jnp.isfinite(x).all(), i, bad)
        return (x, reducer.update(reduced, info), bad), None

    x = start
    if x is None:
        x = sampler.init(jax.random.fold_in(key, 0), shape, sigmas[0])
    carry = (x, reducer.init(shape), jnp.int32(-1))
    steps = jnp.arange(len(sigmas) - 1, dtype=jnp.int32)
    (x, reduced, bad), _ = jax.lax.scan(step, carry, (steps, sigmas[:-1], sigmas[1:]))
    return Sampled(x, reducer.finalize(reduced), bad)
