"""Lesions simulated in real images, to choose settings and to train a bound on.

A star-shaped blob at a point of eligible tissue, with radius r at angle theta

    r = r0 * (1 + sum_k a_k cos(k theta + phi_k)),  k = 2, 3, 4,

changes the image by contrast * clip(1/2 - (rho - r) / softness, 0, 1) at distance rho
from its centre, and the result is clipped to [0, 1]. The shapes are not those of the
test sets, on purpose: what is chosen here must carry over to other anomalies.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.data import npz
from klip_jax.data.base import ImageSet, join


class Lesion(NamedTuple):
    """What lesions look like; lengths in pixels of a 64-pixel image, which scale.

    Attributes:
      contrast: range of the uniform absolute change, image units; the sign is random.
      radius: range of the uniform mean radius r0.
      roughness: standard deviation of each a_k.
      softness: width of the edge, pixels of any image.
    """

    contrast: tuple[float, float] = (0.06, 0.2)
    radius: tuple[float, float] = (2.0, 5.0)
    roughness: float = 0.12
    softness: float = 1.5


def tissue(image: Array, greys: tuple[float, float]) -> Array:
    """Find the pixels whose 3 x 3 neighbourhood lies within `greys`.

    Args:
      image: [H, W, 1] in [0, 1].
      greys: lowest and highest grey of the tissue.

    Returns:
      Boolean mask [H, W]: where a lesion may be centred.
    """
    low, high = greys
    outside = (image[..., 0] < low) | (image[..., 0] > high)
    near = jax.lax.reduce_window(
        outside.astype(jnp.int32), 0, jax.lax.max, (3, 3), (1, 1), "SAME"
    )
    return near == 0


def insert(
    key: Array, image: Array, eligible: Array, kind: Lesion | None = None
) -> tuple[Array, Array]:
    """Put one lesion into an image. Pure: jit and vmap it.

    Args:
      key: PRNG key.
      image: [H, W, 1] in [0, 1].
      eligible: where its centre may be [H, W]; with no such pixel the first is taken.
      kind: see `Lesion`; None takes the defaults.

    Returns:
      The image [H, W, 1], and the mask [H, W]: where the profile exceeds one half.
    """
    kind = Lesion() if kind is None else kind
    height, width, _ = image.shape
    keys = jax.random.split(key, 6)
    lot = jax.random.uniform(keys[0], (height, width), minval=1.0, maxval=2.0)
    centre = jnp.argmax(jnp.where(eligible, lot, 0.0))
    shift = jax.random.uniform(keys[1], (2,), minval=-0.5, maxval=0.5)
    low, high = kind.radius
    r0 = jax.random.uniform(keys[2], minval=low, maxval=high) * height / 64.0
    order = jnp.arange(2, 5)[:, None, None]
    wave = kind.roughness * jax.random.normal(keys[3], (3, 1, 1))
    phase = jax.random.uniform(keys[4], (3, 1, 1), maxval=2 * np.pi)
    low, high = kind.contrast
    u = jax.random.uniform(keys[5], (2,))
    contrast = (low + (high - low) * u[0]) * jnp.where(u[1] < 0.5, -1.0, 1.0)
    y = jnp.arange(height)[:, None] - centre // width - shift[0]
    x = jnp.arange(width) - centre % width - shift[1]
    theta = jnp.arctan2(y, x)
    r = r0 * (1 + jnp.sum(wave * jnp.cos(order * theta + phase), 0))
    profile = jnp.clip(0.5 - (jnp.hypot(x, y) - r) / kind.softness, 0.0, 1.0)
    changed = jnp.clip(image + contrast * profile[..., None], 0.0, 1.0)
    return changed, profile > 0.5


def load(
    *,
    file: str,
    greys: tuple[float, float],
    per_group: int = 50,
    seed: int = 0,
    contrast: tuple[float, float] = Lesion().contrast,
    split: str = "train",
    root: str = "",
    offset: float = 0.0,
    scale: float = 255.0,
) -> ImageSet:
    """Read 2 * per_group images and put a lesion into every second one.

    Args:
      file, split, root, offset, scale: of `npz.load`.
      greys: of the tissue that may hold one; images with fewer than 30 such pixels are
        passed over.
      per_group: images of the groups "id" and "lesion"; no image is in both.
      seed: of the choice of images and of the lesions.
      contrast: of `Lesion`.

    Returns:
      An `ImageSet` with masks and eligible tissue.

    Raises:
      ValueError: if there are too few images; and as `npz.load`.
    """
    known = npz.load(file=file, split=split, root=root, offset=offset, scale=scale)
    eligible = np.asarray(jax.vmap(lambda x: tissue(x, greys))(known.images))
    fit = np.flatnonzero(eligible.sum((1, 2)) >= 30)
    if len(fit) < 2 * per_group:
        raise ValueError(
            f"data.per_group={per_group}: needs {2 * per_group} images with tissue of "
            f"greys {greys}, there are {len(fit)}"
        )
    chosen = np.random.default_rng(seed).permutation(fit)[: 2 * per_group]
    own, sick = (known.take(index) for index in np.split(chosen, 2))
    keys = jax.random.split(jax.random.key(seed), per_group)
    kind = Lesion(contrast=tuple(contrast))
    images, masks = jax.vmap(insert, (0, 0, 0, None))(
        keys, jnp.asarray(sick.images), jnp.asarray(eligible[chosen[per_group:]]), kind
    )
    own = own._replace(masks=np.zeros(eligible[:per_group].shape, bool))
    sick = sick._replace(
        images=np.asarray(images),
        masks=np.asarray(masks),
        groups=("lesion",) * per_group,
    )
    both = join([own, sick])
    return both._replace(eligible=eligible[chosen])
