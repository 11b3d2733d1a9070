"""Anomalies simulated in real images, to choose settings and to train a bound on.

Each is (key, image, eligible) -> (image, mask). The shapes are not those of the test
sets, on purpose: what is chosen here must carry over to other anomalies.

- lesion: a star-shaped blob at a point of eligible tissue, whose radius at angle theta
  is r = r0 (1 + sum_k a_k cos(k theta + phi_k)), k = 2, 3, 4. At distance rho from its
  centre it adds contrast * clip(1/2 - (rho - r) / softness, 0, 1).
- grating: such a blob, larger, which adds three plane waves of random direction.
- stroke: the arc of a circle, at distance rho from which it adds
  contrast * clip(1/2 - (rho - width / 2) / softness, 0, 1).
- bad_views: a few views of a scan do not fit the others. With g = +-1 there and 0
  elsewhere, the filtered back-projection R^T (ramp * g R x) adds straight streaks.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.data import npz
from klip_jax.data.base import ImageSet, in_memory, join
from klip_jax.phantoms.anomalies import back_projection, line_integrals

STREAK = 0.04  # change, image units, that counts as one


class Kind(NamedTuple):
    """What the anomalies look like; lengths in pixels of a 64-pixel image, which scale.

    Attributes:
      contrast: range of the uniform absolute change of a lesion, image units; the sign
        is random.
      radius: range of the uniform mean radius r0 of a lesion; that of a grating is 1.5
        times as large.
      roughness: standard deviation of each a_k.
      softness: width of the edge, pixels of any image.
      amplitude: range of the uniform root mean square of a grating, image units.
      wavelength: range of the uniform wavelengths of a grating.
      length: range of the uniform length of a stroke.
      turn: largest absolute angle by which a stroke turns, radians; uniform.
      width: of a stroke.
      streaks: range of the uniform root mean square of streaks, image units.
      views: how many views are bad.
    """

    contrast: tuple[float, float] = (0.06, 0.2)
    radius: tuple[float, float] = (2.0, 5.0)
    roughness: float = 0.12
    softness: float = 1.5
    amplitude: tuple[float, float] = (0.05, 0.12)
    wavelength: tuple[float, float] = (2.5, 6.0)
    length: tuple[float, float] = (8.0, 20.0)
    turn: float = 2.0
    width: float = 1.5
    streaks: tuple[float, float] = (0.015, 0.04)
    views: int = 3


DEFAULT = Kind()


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
    change = _signed(key_contrast, kind.contrast) * profile
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
    change = _signed(key_amplitude, kind.amplitude) * waves * profile
    return jnp.clip(image + change[..., None], 0.0, 1.0), profile > 0.5


def stroke(
    key: Array, image: Array, eligible: Array, kind: Kind = DEFAULT
) -> tuple[Array, Array]:
    """Put a thin curved line into an image; arguments and results as of `lesion`."""
    side = image.shape[0]
    keys = jax.random.split(key, 5)
    centre = _place(keys[0], eligible)
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
    change = _signed(keys[2], kind.contrast) * profile
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


KINDS = {
    "lesion": lesion,
    "grating": grating,
    "stroke": stroke,
    "bad_views": bad_views,
}


def load(
    *,
    file: str,
    greys: tuple[float, float],
    groups: tuple[str, ...] = ("lesion",),
    per_group: int = 50,
    seed: int = 0,
    contrast: tuple[float, float] = DEFAULT.contrast,
    radius: tuple[float, float] = DEFAULT.radius,
    split: str = "train",
    part: tuple[float, float] = (0.0, 1.0),
    root: str = "",
    offset: float = 0.0,
    scale: float = 255.0,
    shrink: int = 1,
    healthy: str = "",
    oval: tuple[float, ...] = (),
) -> ImageSet:
    """Read images and put an anomaly into all but the first `per_group`.

    Args:
      file, split, part, root, offset, scale, shrink, healthy, oval: of `npz.load`.
      greys: of the tissue that may hold one, inside the oval if there is one; images
        with fewer than 30 such pixels are passed over.
      groups: names in `KINDS`; the group "id" comes before them.
      per_group: images of each group; no image is in two.
      seed: of the choice of images and of the anomalies.
      contrast, radius: of `Kind`.

    Returns:
      An `ImageSet` with masks and eligible tissue.

    Raises:
      ValueError: if there are too few images or a group is unknown; and as `npz.load`.
    """
    for group in groups:
        if group not in KINDS:
            raise ValueError(f"data.groups: no {group!r}; choose of {sorted(KINDS)}")
    known = npz.load(
        file=file,
        split=split,
        part=part,
        root=root,
        healthy=healthy,
        offset=offset,
        scale=scale,
        shrink=shrink,
        oval=oval,
    )
    eligible = np.asarray(jax.vmap(lambda x: tissue(x, greys))(known.images))
    eligible = eligible & (True if known.eligible is None else known.eligible)
    fit = np.flatnonzero(eligible.sum((1, 2)) >= 30)
    count = (1 + len(groups)) * per_group
    if len(fit) < count:
        raise ValueError(
            f"data.per_group={per_group}: needs {count} images with tissue of "
            f"greys {greys}, there are {len(fit)}"
        )
    chosen = np.random.default_rng(seed).permutation(fit)[:count]
    kind = Kind(contrast=contrast, radius=radius)
    parts = []
    for i, index in enumerate(np.split(chosen, 1 + len(groups))):
        group = groups[i - 1] if i else "id"
        own = known.take(index)
        images, masks = own.images, np.zeros(eligible[index].shape, bool)
        if i:
            keys = jax.random.split(jax.random.key(seed + i - 1), per_group)
            put = jax.vmap(KINDS[group], (0, 0, 0, None))
            where = jnp.asarray(eligible[index])
            put_in = put(keys, jnp.asarray(images), where, kind)
            images, masks = (np.asarray(array) for array in put_in)
        parts.append(
            in_memory(
                images,
                own.ids,
                (group,) * per_group,
                masks=masks,
                eligible=eligible[index],
                body=own.body,
                patients=own.patients,
            )
        )
    return join(parts)


def _blob(key, eligible, radius, kind):
    """Profile in [0, 1] of one star-shaped blob centred on an eligible pixel [H, W]."""
    height, width = eligible.shape
    keys = jax.random.split(key, 5)
    centre = _place(keys[0], eligible)
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


def _place(key, eligible):
    """Row and column of an eligible pixel."""
    lot = jax.random.uniform(key, eligible.shape, minval=1.0, maxval=2.0)
    pixel = jnp.argmax(jnp.where(eligible, lot, 0.0))
    return pixel // eligible.shape[1], pixel % eligible.shape[1]


def _signed(key, span):
    """Draw uniformly from `span`, with a random sign."""
    low, high = span
    u = jax.random.uniform(key, (2,))
    return (low + (high - low) * u[0]) * jnp.where(u[1] < 0.5, -1.0, 1.0)
