"""Train a prior by its own loss.

Denoising score matching through `prior.loss` (see `priors.base`), Adam with clipped
gradients, a learning rate that follows a cosine, averaged weights (EMA). Every random
number is a function of (seed, step): a run that was killed continues as if it had not
been.

Reference: docs/theory.md, section 13; Karras et al. 2022, table 1; Kingma and Ba 2015.
"""

import csv
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jax import Array
from jaxtyping import Float, Int
from tqdm import tqdm

from klip_jax import checkpoint
from klip_jax.data.base import Source
from klip_jax.files import write_atomically
from klip_jax.types import Denoiser, PRNGKey

Loss = Callable[[Any, Any, PRNGKey], Float[Array, ""]]
"""(params, a batch of the source's examples, key) -> scalar."""
DTYPES = ("float32", "bfloat16")


class TrainState(NamedTuple):
    """Everything that changes from step to step."""

    step: Int[Array, ""]
    params: Any
    ema: Any
    opt_state: Any


class Recipe(NamedTuple):
    """How to train; see the module docstring.

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
        }
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

    def apply(self, params: Any, x: Array, noise_level: Array) -> Array:
        """Return what the network gives, in the dtype of `x`."""
        low = jax.tree.map(lambda a: a.astype(self.dtype), params)
        return self.net.apply(low, x.astype(self.dtype), noise_level).astype(x.dtype)


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """Return Adam with clipped gradients and the recipe's learning-rate schedule."""
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, recipe.learning_rate, recipe.warmup, max(recipe.steps, recipe.warmup + 1)
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


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
      loss: what is minimised.
      recipe: see `Recipe`.
    """
    key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)
    key_data, key_loss = jax.random.split(key)
    keys = jax.random.split(key_data, recipe.batch)
    batch = jax.vmap(draw, (None, 0))(arrays, keys)
    value, grads = jax.value_and_grad(loss)(state.params, batch, key_loss)
    updates, opt_state = optimiser(recipe).update(grads, state.opt_state)
    params = optax.apply_updates(state.params, updates)
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
      NotImplementedError: if the prior has no loss, with its own sentence.
      ValueError, TypeError: if shapes do not fit.
    """
    state = jax.eval_shape(functools.partial(init_state, recipe=recipe), params)
    step = functools.partial(train_step, draw=source.draw, loss=loss, recipe=recipe)
    jax.eval_shape(step, state, source.arrays)


def train(
    workdir,
    params: Any,
    source: Source,
    loss: Loss,
    recipe: Recipe,
    *,
    progress: bool = True,
) -> TrainState:
    """Train to `recipe.steps`, continuing from the newest checkpoint in `workdir`.

    Writes `checkpoints/` and `train.csv` (step, loss: the mean since the line before).

    Args:
      workdir: folder of both.
      params: to start from.
      source: of training examples.
      loss: what is minimised.
      recipe: see `Recipe`.
      progress: show a bar with loss and images a second.

    Raises:
      FloatingPointError: if the loss is not finite, naming the step.
    """
    workdir = pathlib.Path(workdir)
    manager = checkpoint.training_checkpoints(workdir / "checkpoints", keep=recipe.keep)
    state = init_state(params, recipe)
    restored = checkpoint.restore(manager, state)
    state = state if restored is None else restored
    first = int(state.step)
    log = _read_log(workdir / "train.csv", first)

    def step_of(state, arrays):
        return train_step(state, arrays, draw=source.draw, loss=loss, recipe=recipe)

    step_of = jax.jit(step_of, donate_argnums=0)
    losses = []
    bar = tqdm(
        range(first, recipe.steps),
        initial=first,
        total=recipe.steps,
        unit_scale=recipe.batch,
        unit="images",
        disable=not progress,
    )
    for step in bar:
        state, value = step_of(state, source.arrays)
        losses.append(float(value))
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(
                f"the loss is {losses[-1]} at step {step}; lower "
                "train.recipe.learning_rate"
            )
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
            log.append((step + 1, float(np.mean(losses))))
            losses.clear()
            # First the log: lines later than the newest checkpoint are dropped, while
            # one that was never written would be missed.
            _write_log(workdir / "train.csv", log)
            manager.save(step + 1, args=ocp.args.StandardSave(state))
            bar.set_postfix(loss=f"{log[-1][1]:.4f}")
    manager.wait_until_finished()
    manager.close()
    return state


def denoising_errors(
    prior: Denoiser,
    images: Float[np.ndarray, "n h w c"],
    levels: Float[np.ndarray, " l"],
    *,
    seed: int = 0,
) -> Float[np.ndarray, " l"]:
    """Return E||x0 - D(x0 + sigma z, sigma)||^2 / d at each noise level.

    Args:
      prior: any denoiser.
      images: [N, H, W, C] in [0, 1], all used at every level.
      levels: [L] noise levels in image units.
      seed: of the noise.

    Returns:
      [L], squared image units.
    """

    @jax.jit
    def error(prior, x0, sigma, key):
        x = x0 + sigma * jax.random.normal(key, x0.shape)
        denoised = jax.vmap(prior, (0, None))(x, sigma)
        return jnp.mean((denoised - x0) ** 2)

    def at(level, sigma):
        key = jax.random.fold_in(jax.random.key(seed), level)
        parts = [images[i : i + 32] for i in range(0, len(images), 32)]
        values = [
            error(prior, jnp.asarray(p), jnp.float32(sigma), jax.random.fold_in(key, i))
            for i, p in enumerate(parts)
        ]
        return np.average(np.array(values), weights=[len(p) for p in parts])

    return np.array([at(level, sigma) for level, sigma in enumerate(levels)])


def _read_log(path: pathlib.Path, step: int) -> list[tuple[int, float]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="") as file:
            rows = [(int(r["step"]), float(r["loss"])) for r in csv.DictReader(file)]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"{path}: not a log of a training ({error})") from None
    return [row for row in rows if row[0] <= step]


def _write_log(path: pathlib.Path, rows: list[tuple[int, float]]) -> None:
    lines = ["step,loss", *(f"{step},{loss!r}" for step, loss in rows)]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
