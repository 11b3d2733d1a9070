"""Blobs simulated in real images: lesions and foreign texture.

A blob is star-shaped, at a point of eligible tissue; its radius at angle theta is

    r = r0 (1 + sum_k a_k cos(k theta + phi_k)),   k = 2, 3, 4

and at distance rho from its centre its profile is clip(1/2 - (rho - r) / softness, 0,
1). A lesion adds contrast * profile; a grating is larger and adds three plane waves of
random direction.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.phantoms.base_simulated import DEFAULT, Kind, place, signed


def lesion(
    key: Array, image: Array, eligible: Array, kind: Kind = DEFAULT
) -> tuple[Array, Array]:
    """Put one lesion into an image. Pure: jit and vmap it.

    Args:
      key: PRNG key.
      image: [H, W, 1] in [0, 1].
      eligible: where its centre may be [H, W]; with no such pixel the first is taken.
      kind: see `Kind`.

    Returns:
      The image [H, W, 1], and the mask [H, W]: where the profile exceeds one half.
    """
    key, key_contrast = jax.random.split(key)
    profile = _blob(key, eligible, kind.radius, kind)
    change = signed(key_contrast, kind.contrast) * profile
    return jnp.clip(image + change[..., None], 0.0, 1.0), profile > 0.5


def grating(
    key: Array, image: Array, eligible: Array, kind: Kind = DEFAULT
) -> tuple[Array, Array]:
    """Put foreign texture into an image; arguments and results as of `lesion`."""
    side = image.shape[0]
    key, key_amplitude, *keys = jax.random.split(key, 5)
    low, high = kind.radius
    profile = _blob(key, eligible, (1.5 * low, 1.5 * high), kind)
    length, angle, phase = (jax.random.uniform(k, (3, 1, 1)) for k in keys)
    low, high = kind.wavelength
    length = (low + (high - low) * length) * side / 64.0
    angle = jnp.pi * angle
    y, x = jnp.arange(side)[:, None], jnp.arange(image.shape[1])
    along = jnp.cos(angle) * x + jnp.sin(angle) * y
    waves = jnp.sin(2 * jnp.pi * (along / length + phase)).sum(0) / jnp.sqrt(1.5)
    change = signed(key_amplitude, kind.amplitude) * waves * profile
    return jnp.clip(image + change[..., None], 0.0, 1.0), profile > 0.5


def _blob(key, eligible, radius, kind):
    """Profile in [0, 1] of one star-shaped blob centred on an eligible pixel [H, W]."""
    height, width = eligible.shape
    keys = jax.random.split(key, 5)
    centre = place(keys[0], eligible)
    shift = jax.random.uniform(keys[1], (2,), minval=-0.5, maxval=0.5)
    low, high = radius
    r0 = jax.random.uniform(keys[2], minval=low, maxval=high) * height / 64.0
    order = jnp.arange(2, 5)[:, None, None]
    wave = kind.roughness * jax.random.normal(keys[3], (3, 1, 1))
    phase = jax.random.uniform(keys[4], (3, 1, 1), maxval=2 * np.pi)
    y = jnp.arange(height)[:, None] - centre[0] - shift[0]
    x = jnp.arange(width) - centre[1] - shift[1]
    theta = jnp.arctan2(y, x)
    r = r0 * (1 + jnp.sum(wave * jnp.cos(order * theta + phase), 0))
    return jnp.clip(0.5 - (jnp.hypot(x, y) - r) / kind.softness, 0.0, 1.0)
