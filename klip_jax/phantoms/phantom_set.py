"""Sets of procedural phantoms: a number of them to test on, a stream to train on."""

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax.data.base import ImageSet, Source, in_memory
from klip_jax.data.base_join import join
from klip_jax.phantoms.anomalies import draw


def load(
    *,
    groups: tuple[str, ...] = ("id", "lesion"),
    per_group: int = 16,
    size: int = 64,
    seed: int = 0,
    root: str = "",
) -> ImageSet:
    """Draw `per_group` phantoms of each group, every one another anatomy.

    Args:
      groups: kinds of `anomalies.draw`; "id" has no anomaly.
      per_group: images of each, >= 1; the first ones do not depend on how many follow.
      size: side, pixels.
      seed: of the anatomies, in [0, 2^32); groups of one seed do not share them.
      root: unused; phantoms need no data.

    Returns:
      An `ImageSet` with exact masks.

    Raises:
      ValueError: if per_group is below 1, the seed out of its range or a group unknown.
    """
    if per_group < 1:
        raise ValueError(f"per_group={per_group}: at least one image of each group")
    if not 0 <= seed < 2**32:
        raise ValueError(f"data.seed={seed}: must be in [0, 2^32)")
    return join([_group(group, per_group, size, seed) for group in groups])


def source(*, size: int = 64) -> Source:
    """Return an endless stream of in-distribution phantoms for training."""
    return Source(lambda arrays, key: draw(key, "id", size).image)


def _group(group, per_group, size, seed):
    root = jax.random.key(seed)
    for letter in group.encode():
        root = jax.random.fold_in(root, letter)
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(per_group))
    drawn = jax.jit(jax.vmap(lambda key: draw(key, group, size)))(keys)
    ids = tuple(f"{group}_{i:04d}" for i in range(per_group))
    return in_memory(
        np.asarray(drawn.image),
        ids,
        (group,) * per_group,
        masks=np.asarray(drawn.mask) > 0,
        eligible=np.asarray(drawn.eligible) > 0,
        body=np.asarray(drawn.body) > 0,
        patients=ids,
    )
