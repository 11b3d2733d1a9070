"""Random keys from names: results do not depend on order, batch, shard or resume.

The key of image `name` is fold_in(fold_in(root, w0), w1) with the two words of 32 bits
of its name (64 bits of SHA-256: two of a million names share them once in 4e7 sets).
From it: the noise has fold_in(key, NOISE), the posterior fold_in(key, POSTERIOR), a
detector the words of its own name, folded into fold_in(key, DETECTOR).
"""

import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax.types import PRNGKey

NOISE, POSTERIOR, DETECTOR, DRAW = range(4)


def words(name: str) -> np.ndarray:
    """Return the first two words of 32 bits of the SHA-256 of `name`, uint32 [2]."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return np.frombuffer(digest[:8], ">u4").astype(np.uint32)


def folded(key: PRNGKey, pair) -> PRNGKey:
    """Fold the two words of a name into a key."""
    return jax.random.fold_in(jax.random.fold_in(key, pair[0]), pair[1])


def image_keys(seed: int, names: Sequence[str]):
    """Return the keys [n] of images by their names."""
    pairs = jnp.asarray(np.stack([words(name) for name in names]))
    return jax.vmap(folded, (None, 0))(jax.random.key(seed), pairs)
