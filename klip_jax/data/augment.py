"""Training images moved, stretched, mirrored and regreyed a little, on the fly.

    x'(i, j) = clip(1/2 + g (x((i - t_1) / s_1, (j - t_2) / s_2) - 1/2) + b, 0, 1)

Few images teach a network their own details: it denoises those better than any others
(compare the two columns of a prior's card). Every draw is another image instead. The
resampling filter is Lanczos', which keeps edges and texture as sharp as they were; a
bilinear one would teach that anatomy is blurred.

A classifier is shown more: whole-pixel shifts that fill in what they mirror at the edge
(a crop of the padded image), and a square at a random place that is grey, 1/2.

Reference: DeVries and Taylor 2017 (cutout); He et al. 2016, section 4.2 (the crop).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.data.base import Source

_HIGHEST = {"mirror": 1.0, **dict.fromkeys(("shift", "crop", "cutout"), math.inf)}


class Augment(NamedTuple):
    """How much; all zero, the default, changes nothing.

    Attributes:
      shift: largest |t| along each axis, pixels.
      stretch: largest |s - 1| of each axis; both share half of it.
      mirror: share of images that are mirrored left to right, in [0, 1].
      contrast: largest |g - 1|.
      brightness: largest |b|, image units.
      crop: largest whole-pixel shift along each axis, mirrored at the edges.
      cutout: side of the grey square, pixels; its middle is anywhere in the image.
    """

    shift: float = 0.0
    stretch: float = 0.0
    mirror: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    crop: int = 0
    cutout: int = 0

    def check(self) -> None:
        """Raise a ValueError naming the first number that cannot work."""
        for name, value in self._asdict().items():
            high = _HIGHEST.get(name, 0.5)
            if not 0 <= value <= high:
                raise ValueError(
                    f"train.augment: {name}={value}: must be in [0, {high}]"
                )


def augmented(source: Source, settings: Augment) -> Source:
    """Return a source that changes every image that `source` draws.

    Args:
      source: of images in [0, 1], or of (image, label): labels stay.
      settings: how much; with all zero the source itself is returned.

    Raises:
      ValueError: if a setting is out of range.
    """
    settings.check()
    if not any(settings):
        return source

    def draw(arrays, key):
        key_image, key_change = jax.random.split(key)
        drawn = source.draw(arrays, key_image)
        if isinstance(drawn, tuple):
            image, *label = drawn
            return augment(key_change, image, settings), *label
        return augment(key_change, drawn, settings)

    return Source(draw, source.arrays)


def augment(key: Array, image: Array, settings: Augment) -> Array:
    """Change one image [H, W, C] in [0, 1]; see the module docstring. Pure."""
    height, width, _ = image.shape
    u = jax.random.uniform(key, (7,), minval=-1.0)
    middle = jnp.array([height, width]) / 2
    scale = 1 + settings.stretch * (u[0] + u[1:3]) / 2
    # The middle of the image stays where it is, but for the shift.
    translation = middle * (1 - scale) + settings.shift * u[3:5]
    moved = image
    if settings.shift or settings.stretch:
        # What comes in over the edge is what the edge shows.
        pad = math.ceil(settings.shift + settings.stretch * max(height, width)) + 3
        moved = jax.image.scale_and_translate(
            jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), "edge"),
            image.shape,
            (0, 1),
            scale,
            translation - pad * scale,
            "lanczos3",
        )
    mirrored = jax.random.bernoulli(jax.random.fold_in(key, 1), settings.mirror)
    moved = jnp.where(mirrored, moved[:, ::-1], moved)
    if settings.crop:
        moved = _crop(jax.random.fold_in(key, 2), moved, settings.crop)
    moved = 0.5 + (1 + settings.contrast * u[5]) * (moved - 0.5)
    moved = jnp.clip(moved + settings.brightness * u[6], 0.0, 1.0)
    if settings.cutout:
        moved = _cut_out(jax.random.fold_in(key, 3), moved, settings.cutout)
    return moved


def _crop(key, image, most):
    padded = jnp.pad(image, ((most, most), (most, most), (0, 0)), "reflect")
    start = jax.random.randint(key, (2,), 0, 2 * most + 1)
    return jax.lax.dynamic_slice(padded, (*start, 0), image.shape)


def _cut_out(key, image, side):
    inside = []
    for n, k in zip(image.shape[:2], jax.random.split(key), strict=True):
        first = jax.random.randint(k, (), 0, n) - side // 2
        inside.append((first <= jnp.arange(n)) & (jnp.arange(n) < first + side))
    return jnp.where((inside[0][:, None] & inside[1])[..., None], 0.5, image)
