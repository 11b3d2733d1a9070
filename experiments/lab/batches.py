"""A function of one image over many images, so many of them at once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from klip_jax.data.base import ImageSet
from klip_jax.scan import simulate
from klip_jax.types import Given
from lab.problems import Setup

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


def look(prior, operator, noise_std, sampler, klip, key, x):
    """Return (`Detection`, `Posterior`) of one image, measured here. Pure.

    The key is split into noise and the rest, the rest into samples and levels.
    """
    key_noise, key = jax.random.split(key)
    key_samples, key_levels = jax.random.split(key)
    scan = simulate(key_noise, operator, x, noise_std)
    posterior = sampler(key_samples, scan, prior)
    given = Given(prior, scan=scan, posterior=posterior)
    return klip(key_levels, given), posterior


def looks(setup: Setup, images: ImageSet, seed: int, desc: str = "") -> Iterator[Any]:
    """Yield `look` of each image, image i with the i-th key split from `seed`."""
    keys = jax.random.split(jax.random.key(seed), len(images))
    shared = *setup.scanner, setup.sampler, setup.klip
    return over_images(look, shared, keys, images.images, desc=desc)
