"""Lines simulated in real images: strokes, and the streaks of a scan's bad views.

- stroke: the arc of a circle, at distance rho from which it adds
  contrast * clip(1/2 - (rho - width / 2) / softness, 0, 1).
- bad_views: a few views of a scan do not fit the others. With g = +-1 there and 0
  elsewhere, the filtered back-projection R^T (ramp * g R x) adds straight streaks.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.phantoms.base_simulated import DEFAULT, Kind, place, signed
from klip_jax.phantoms.radon import back_projection, line_integrals

STREAK = 0.04  # change, image units, that counts as one


def stroke(
    key: Array, image: Array, eligible: Array, kind: Kind = DEFAULT
) -> tuple[Array, Array]:
    """Put a thin curved line into an image; arguments and results as of `lesion`."""
    side = image.shape[0]
    keys = jax.random.split(key, 5)
    centre = place(keys[0], eligible)
    low, high = kind.length
    u = jax.random.uniform(keys[1], (3,))
    length = (low + (high - low) * u[0]) * side / 64.0
    # Points of the arc, half a pixel apart or less, its middle at the centre.
    count = 2 * math.ceil(high * side / 64.0)
    along = jnp.linspace(-0.5, 0.5, count)
    angle = 2 * np.pi * u[1] + kind.turn * (2 * u[2] - 1) * along
    y, x = (jnp.cumsum(f(angle)) * length / count for f in (jnp.sin, jnp.cos))
    y, x = (p - p[count // 2] + c for p, c in zip((y, x), centre, strict=True))
    rows, columns = jnp.arange(side)[:, None, None], jnp.arange(image.shape[1])[:, None]
    rho = jnp.hypot(rows - y, columns - x).min(-1)
    width = kind.width * side / 64.0
    profile = jnp.clip(0.5 - (rho - width / 2) / kind.softness, 0.0, 1.0)
    change = signed(keys[2], kind.contrast) * profile
    return jnp.clip(image + change[..., None], 0.0, 1.0), profile > 0.5


def bad_views(
    key: Array, image: Array, eligible: Array, kind: Kind = DEFAULT
) -> tuple[Array, Array]:
    """Put streaks into an image; arguments and results as of `lesion`.

    The mask is where the change exceeds `STREAK`; `eligible` is not used.
    """
    del eligible
    p = line_integrals(image[..., 0])
    keys = jax.random.split(key, 3)
    view = jax.random.choice(keys[0], len(p), (kind.views,), replace=False)
    sign = jax.random.rademacher(keys[1], (kind.views, 1), p.dtype)
    streaks = back_projection(
        jnp.zeros_like(p).at[view].set(sign * p[view]), len(image)
    )
    rms = jax.random.uniform(keys[2], minval=kind.streaks[0], maxval=kind.streaks[1])
    change = rms * streaks / jnp.sqrt(jnp.mean(streaks**2))
    changed = jnp.clip(image + change[..., None], 0.0, 1.0)
    return changed, jnp.abs(changed - image)[..., 0] > STREAK
