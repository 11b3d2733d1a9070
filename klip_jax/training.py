"""Train a network by its loss.

Denoising score matching through `prior.loss` (see `priors.base`), or the cross-entropy
of a classifier (`classifiers.base_loss`); the optimiser of `recipe`, averaged weights
(EMA). Every random number is a function of (seed, step).

Reference: docs/theory.md, section 13; Karras et al. 2022, table 1.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from klip_jax.data.base import Source
from klip_jax.recipe import Recipe, optimiser
from klip_jax.types import PRNGKey

Loss = Callable[[Any, Any, PRNGKey], tuple[Float[Array, ""], dict]]
"""(params, a batch of the source's examples, key) -> (scalar, what of the params it has
moved itself, such as running statistics; {} for nothing)."""


class TrainState(NamedTuple):
    """Everything that changes from step to step."""

    step: Int[Array, ""]
    params: Any
    ema: Any
    opt_state: Any


def init_state(params: Any, recipe: Recipe) -> TrainState:
    """Return the state before the first step."""
    # Copies, because a step donates its buffers: none may be given twice or be kept.
    own, ema = (jax.tree.map(jnp.copy, params) for _ in range(2))
    return TrainState(jnp.int32(0), own, ema, optimiser(recipe).init(params))


def train_step(
    state: TrainState,
    arrays: Any,
    *,
    draw: Callable,
    loss: Loss,
    recipe: Recipe,
) -> tuple[TrainState, Float[Array, ""]]:
    """Take one optimiser step; returns (state, loss). Pure: jit it.

    Args:
      state: before the step.
      arrays: of the `Source`.
      draw: of the `Source`.
      loss: what is minimised; where it moves running statistics, they are taken as
        they are, and averaged like the weights.
      recipe: see `Recipe`.
    """
    key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
    key_data, key_loss = jax.random.split(key)
    keys = jax.random.split(key_data, recipe.batch)
    batch = jax.vmap(draw, (None, 0))(arrays, keys)
    graded = jax.value_and_grad(loss, has_aux=True)
    (value, moved), grads = graded(state.params, batch, key_loss)
    update = optimiser(recipe).update
    updates, opt_state = update(grads, state.opt_state, state.params)
    params = {**optax.apply_updates(state.params, updates), **moved}
    # A short memory at first, so that the average forgets the initial weights.
    decay = jnp.minimum(recipe.ema, (1 + state.step) / (10 + state.step))
    ema = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.ema, params)
    return TrainState(state.step + 1, params, ema, opt_state), value


def check_step(params: Any, source: Source, loss: Loss, recipe: Recipe) -> None:
    """Trace one training step, nothing computed, so that what cannot train says so.

    Args:
      params: to start from, or their shapes.
      source, loss, recipe: as of `train`.

    Raises:
      NotImplementedError: if a prior has no loss, with its own sentence.
      ValueError, TypeError: if shapes do not fit.
    """
    state = jax.eval_shape(functools.partial(init_state, recipe=recipe), params)
    step = functools.partial(train_step, draw=source.draw, loss=loss, recipe=recipe)
    jax.eval_shape(step, state, source.arrays)
