"""Many training steps in a folder: checkpoints, a log, and going on where it broke off.

A run that was killed continues as if it had not been: every random number is a function
of (seed, step). Ctrl-C ends it after the step that it is at, with a checkpoint.
"""

import contextlib
import csv
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from klip_jax import checkpoint
from klip_jax.data.base import Source
from klip_jax.files import write_atomically
from klip_jax.progress import bar
from klip_jax.recipe import Recipe
from klip_jax.training import Loss, TrainState, init_state, train_step


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

    Returns:
      The state after the last step: of fewer than `recipe.steps` after Ctrl-C.

    Raises:
      FloatingPointError: if the loss is not finite, naming the step.
    """
    workdir = pathlib.Path(workdir)
    manager = checkpoint.training_checkpoints(workdir / "checkpoints", keep=recipe.keep)
    state = newest(manager, params, recipe)
    first = int(state.step)
    log = _read_log(workdir / "train.csv", first)
    step_of = _compiled(source, loss, recipe)
    losses, pending = [], None
    progress_bar = bar(
        range(first, recipe.steps),
        initial=min(first, recipe.steps),
        total=recipe.steps,
        unit_scale=recipe.batch,
        unit="images",
        disable=not progress,
    )
    # Whatever breaks off, a checkpoint that is being written is finished first.
    with contextlib.closing(manager), _asked_to_stop() as stopped:
        for step in progress_bar:
            state, value = step_of(state, source.arrays)
            # That of the step before: a device that waits to be asked stands still.
            if pending is not None:
                losses.append(_finite(pending, step - 1))
            pending = value
            last = step + 1 == recipe.steps or stopped()
            if (step + 1) % recipe.checkpoint_every == 0 or last:
                losses.append(_finite(pending, step))
                pending = None
                log.append((step + 1, float(np.mean(losses))))
                losses.clear()
                # First the log: lines later than the newest checkpoint are dropped,
                # while one that was never written would be missed.
                _write_log(workdir / "train.csv", log)
                manager.save(step + 1, args=ocp.args.StandardSave(state))
                progress_bar.set_postfix(loss=f"{log[-1][1]:.4f}")
            if last:
                break
    progress_bar.close()
    return state


def newest(manager: Any, params: Any, recipe: Recipe) -> TrainState:
    """Return the state of the newest checkpoint, or the one before the first step."""
    state = init_state(params, recipe)
    restored = checkpoint.restore(manager, state)
    return state if restored is None else restored


def done(workdir) -> int:
    """Return the steps of the newest checkpoint in a workdir, 0 without one."""
    folder = pathlib.Path(workdir) / "checkpoints"
    names = folder.iterdir() if folder.is_dir() else ()
    return max((int(p.name) for p in names if p.name.isdecimal()), default=0)


def seconds_per_step(
    params: Any, source: Source, loss: Loss, recipe: Recipe, *, count: int = 3
) -> float:
    """Time a training step, after one that compiles it; nothing is kept of them."""
    state, step_of = init_state(params, recipe), _compiled(source, loss, recipe)
    state, value = step_of(state, source.arrays)
    value.block_until_ready()
    start = time.perf_counter()
    for _ in range(count):
        state, value = step_of(state, source.arrays)
    value.block_until_ready()
    return (time.perf_counter() - start) / count


def _compiled(source: Source, loss: Loss, recipe: Recipe) -> Callable:
    def step_of(state, arrays):
        return train_step(state, arrays, draw=source.draw, loss=loss, recipe=recipe)

    return jax.jit(step_of, donate_argnums=0)


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C came; a second one interrupts at once.

    A step gives its buffers away: one that is broken off leaves no state to save.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number, frame):
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _finite(loss, step: int) -> float:
    value = float(loss)
    if not np.isfinite(value):
        raise FloatingPointError(
            f"the loss is {value} at step {step}; lower train.recipe.learning_rate"
        )
    return value


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
