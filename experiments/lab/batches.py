"""A function of one image over many images, so many of them at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

flags.DEFINE_integer("at_once", 1, "Images computed together; many on a GPU.")


def over_images(
    f: Callable, shared: Sequence[Any], *columns: Sequence[Any], desc: str = ""
) -> Iterator[Any]:
    """Yield what `f(*shared, *row)` returns for each row of `columns`, as numpy trees.

    Args:
      f: a pure function of what all images share, then of one image's arrays.
      shared: its first arguments.
      columns: of each further argument, one value an image [N, ...].
      desc: before the progress bar.
    """
    axes = (None,) * len(shared) + (0,) * len(columns)
    of_many = jax.jit(jax.vmap(f, axes))
    count, at_once = len(columns[0]), flags.FLAGS.at_once
    bar = tqdm(total=count, unit="image", desc=desc, disable=not count)
    for start in range(0, count, at_once):
        some = np.arange(start, min(start + at_once, count))
        # The last ones are filled up, so that every call has the compiled shape.
        index = np.resize(some, at_once)
        rows = [jnp.stack([column[i] for i in index]) for column in columns]
        found = jax.tree.map(np.asarray, of_many(*shared, *rows))
        for i in range(len(some)):
            yield jax.tree.map(lambda a, i=i: a[i], found)
            bar.update()
    bar.close()
