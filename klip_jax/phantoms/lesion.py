"""A lesion in abdominal CT: an ellipse with a soft edge, in tissue.

hu + contrast * clip(1/2 - d / 2, 0, 1)      at signed distance d, pixels
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.phantoms import shapes
from klip_jax.phantoms.anatomy import Phantom, clear


def lesion(
    key: Array,
    anatomy: Phantom,
    contrast_hu: tuple[float, float] = (25.0, 60.0),
) -> tuple[Array, Array]:
    """Add a soft-edged ellipse to the tissue around an eligible point.

    The centre is uniform over the eligible pixels and inside the pixel; the semi-axes
    are uniform in 2-5 pixels at size 64 and scale with the size; the orientation is
    uniform. Tissue within one pixel of bone, gas or the outside stays as it is.

    Args:
      key: PRNG key.
      anatomy: a `Phantom` of arrays [H, W] with at least one eligible pixel.
      contrast_hu: range of the uniform absolute contrast, HU; the sign is random.

    Returns:
      Attenuation [H, W], HU, and the mask [H, W]: where it changed by more than half
      of the contrast. The mask holds the centre's pixel and is never empty.
    """
    size = len(anatomy.hu)
    keys = jax.random.split(key, 6)
    lot = jax.random.uniform(keys[0], (size, size), minval=1.0, maxval=2.0)
    pixel = jnp.argmax(jnp.where(anatomy.eligible, lot, 0.0))
    shift = jax.random.uniform(keys[1], (2,), minval=-0.5, maxval=0.5)
    a, b = jax.random.uniform(keys[2], (2,), minval=2.0, maxval=5.0) * size / 64.0
    angle = jax.random.uniform(keys[3], maxval=np.pi)
    contrast = jax.random.uniform(
        keys[4], minval=contrast_hu[0], maxval=contrast_hu[1]
    ) * jax.random.rademacher(keys[5], (), jnp.float32)
    y = jnp.arange(size)[:, None] - pixel // size - shift[0]
    x = jnp.arange(size) - pixel % size - shift[1]
    distance = shapes.ellipse_distance(x, y, a, b, angle)
    tissue = clear(anatomy.labels)
    profile = jnp.where(tissue, jnp.clip(0.5 - 0.5 * distance, 0.0, 1.0), 0.0)
    return anatomy.hu + contrast * profile, profile > 0.5
