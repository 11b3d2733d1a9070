"""Images of the benchmarks in which a classifier takes part.

`parts` cuts image sets into as many as there are seeds, and one more to compare with;
`simulated` makes images of no class out of training images of several.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from klip_jax.data.base import ImageSet, in_memory
from klip_jax.data.base_join import join

HELD = "held"
"""What the names of the images that are compared with begin with."""
MIXED = "halves", "blend", "shuffled"


def parts(
    *, data: ImageSet, seeds: int, sizes: Mapping[str, int], held: int
) -> ImageSet:
    """Return other images of each group for each seed, and held ones of "id".

    Every (seeds + 1)th image is of one seed, the last of each as many are held. Their
    names begin with "seed0_", .. and "held_", so that their keys are others too.

    Args:
      data: evenly spaced over their files.
      seeds: how many.
      sizes: {group: images of each seed}, of the groups to keep.
      held: images of "id" that no table counts.

    Raises:
      ValueError: if there are too few images.
    """
    groups, chosen = np.array(data.groups), []
    wanted = [(HELD, seeds, {"id": held})]
    wanted += [(f"seed{seed}", seed, sizes) for seed in range(seeds)]
    for name, first, counts in wanted:
        for group, count in counts.items():
            own = np.flatnonzero(groups == group)[first :: seeds + 1]
            if count > len(own):
                raise ValueError(
                    f"{name}: {len(own)} images of {group!r} are there, not {count}"
                )
            some = own[np.linspace(0, len(own) - 1, count).astype(int)]
            taken = data.take(some)
            ids = tuple(f"{name}_{i}" for i in taken.ids)
            chosen.append(dataclasses.replace(taken, ids=ids))
    return join(chosen)


def seed_of(ids) -> np.ndarray:
    """Return the seed of each image of `parts` by its name, -1 of those held."""
    return np.array([-1 if i.startswith(HELD) else int(i[4]) for i in ids])


def simulated(*, data: ImageSet, seed: int, block: int = 8) -> ImageSet:
    """Return half of the images as they are, the others mixed with each other.

        halves    the left of one image, the right of another
        blend     the mean of two
        shuffled  the blocks of one, in another order

    Two are of other classes. Nothing comes from another file, so that no detector can
    tell them by their codec but at the seams.

    Args:
      data: training images with labels, all of the group "id".
      seed: of the pairs.
      block: side of the blocks, pixels.

    Raises:
      ValueError: if the images have no labels.
    """
    if data.labels is None:
        raise ValueError("images are mixed with those of other classes: give labels")
    rng, labels = np.random.default_rng(seed), np.array(data.labels)
    order = rng.permutation(len(data))
    own, rest = order[: len(order) // 2], order[len(order) // 2 :]
    made = []
    kinds = [MIXED[i % len(MIXED)] for i in range(len(rest))]
    for one, kind in zip(rest, kinds, strict=True):
        other = rng.choice(rest[labels[rest] != labels[one]])
        made.append(_mixed(kind, *data.images[[one, other]], block, rng))
    ids = [data.ids[i] for i in own]
    ids += [f"{data.ids[i]}_{kind}" for i, kind in zip(rest, kinds, strict=True)]
    return in_memory(
        np.concatenate([data.images[own], np.stack(made)]),
        ids,
        ["id"] * len(own) + kinds,
        labels=[*labels[own], *([-1] * len(rest))],
    )


def _mixed(kind, a, b, block, rng):
    if kind == "blend":
        return (a + b) / 2
    if kind == "halves":
        middle = a.shape[1] // 2
        return np.concatenate([a[:, :middle], b[:, middle:]], 1)
    height, width, channels = a.shape
    grid = height // block, width // block
    blocks = a.reshape(grid[0], block, grid[1], block, channels).swapaxes(1, 2)
    blocks = rng.permutation(blocks.reshape(-1, block, block, channels))
    return blocks.reshape(*grid, block, block, channels).swapaxes(1, 2).reshape(a.shape)
