"""From what files hold to images in [0, 1] and masks, once for all readers.

image = (grey - offset) / scale,    mask = (value == label)
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy.ndimage import binary_fill_holes

_ROUNDING = 1e-5  # of floats, image units
_SLACK = 2.0  # of integers, grey levels: rounding below the stated range
_WHITES = (1, 255, 65535)  # the largest value of an antialiased edge


class Greys(NamedTuple):
    """What becomes 0 and 1; settings of every reader.

    Attributes:
      offset: the grey value that becomes 0.
      scale: the range that becomes 1, > 0.
      clip: whether pixels outside that range are cut; they are refused otherwise.
    """

    offset: float = 0.0
    scale: float = 255.0
    clip: bool = False

    def check(self, greys: np.ndarray, where: str) -> None:
        """Check that `greys` become images.

        Raises:
          ValueError: if there are none, they are no real numbers, a pixel is NaN or
            falls outside the range, or floats in [0, 1] meet the scale of integers.
        """
        offset, scale = self.offset, self.scale
        if not (np.isfinite(offset) and np.isfinite(scale) and scale > 0):
            raise ValueError(
                f"data.scale={scale}: the range of grey values is positive; "
                f"data.offset={offset}: finite"
            )
        if greys.ndim not in (3, 4) or not greys.size:
            raise ValueError(
                f"{where}: images must be [N, H, W(, C)], got {greys.shape}"
            )
        if greys.dtype.kind not in "uifb":
            raise ValueError(
                f"{where}: images of {greys.dtype}; they must be real numbers"
            )
        floats = greys.dtype.kind == "f"
        if floats and not np.isfinite(greys).all():
            bad = ~np.isfinite(greys)
            first = [int(i) for i in np.argwhere(bad)[0]]
            raise ValueError(
                f"{where}: {int(bad.sum())} pixels are NaN or infinite, the first at "
                f"[image, row, column, channel] = {first}"
            )
        low, high = (float(greys.min()), float(greys.max()))
        if floats and 0 < high <= 1 and scale >= 2:
            raise ValueError(
                f"{where}: greys are floats up to {high:.4g}, which data.scale="
                f"{scale:g} would make black; give data.scale=1"
            )
        slack = _ROUNDING if floats else _SLACK / scale
        bottom, top = offset - slack * scale, offset + (1 + slack) * scale
        if not self.clip and (low <= bottom or high >= top):
            share = np.mean((greys <= bottom) | (greys >= top))
            raise ValueError(
                f"{where}: images must lie in [0, 1], found "
                f"[{(low - offset) / scale:.4g}, {(high - offset) / scale:.4g}], "
                f"{share:.2%} of the pixels outside; set data.offset and data.scale so "
                "that (grey - offset) / scale does, or data.clip=True to cut them"
            )

    def images(
        self, greys: Shaped[np.ndarray, "n h w *c"]
    ) -> Float[np.ndarray, "n h w c"]:
        """Return (greys - offset) / scale, cut to [0, 1]; `check` what is read."""
        greys = greys[..., None] if greys.ndim == 3 else greys
        images = (greys.astype(np.float32) - self.offset) / self.scale
        return np.clip(images, 0, 1).astype(np.float32)


def mask_of(values: Shaped[np.ndarray, "*n"], label: int, where: str) -> np.ndarray:
    """Return where `values` hold the anomaly, a boolean array.

    Args:
      values: booleans; two values, of which the larger counts; greys with an
        antialiased edge up to 1, 255 or 65535, of which half of that and more counts;
        or labels.
      label: the one that counts; 0 where the values are not labels.
      where: they come from, for the message.

    Raises:
      ValueError: if there are labels and none was named, or they are no numbers.
    """
    if values.dtype == bool:
        return values
    if values.dtype.kind not in "uif":
        raise ValueError(f"{where}: a mask of {values.dtype}; it must hold numbers")
    if label:
        return values == label
    highest = values.max(initial=0)
    if ((values == 0) | (values == highest)).all():
        return values > 0
    if highest in _WHITES:
        return values >= highest / 2
    kinds = [f"{v:g}" for v in np.unique(values)[:9]]
    raise ValueError(
        f"{where}: a mask with the labels {', '.join(kinds)}; say with data.label "
        "which is the anomaly"
    )


def shrunk(array: Shaped[np.ndarray, "n h w *c"], side: int) -> np.ndarray:
    """Return the means over squares of `side` pixels; float32, `array` itself for 1."""
    if side == 1:
        return array
    n, height, width, *channels = array.shape
    squares = n, height // side, side, width // side, side, *channels
    return array.reshape(squares).mean((2, 4), dtype=np.float32)


def check_shrink(shape: tuple[int, ...], side: int, where: str) -> None:
    """Raise a ValueError unless squares of `side` pixels fill [N, H, W] arrays."""
    if side < 1:
        raise ValueError(f"data.shrink={side}: the side of a square, at least 1")
    height, width = shape[1:3]
    if height % side or width % side:
        raise ValueError(
            f"{where} is {height}x{width}, which data.shrink={side} does not divide"
        )


def filled(
    images: Float[np.ndarray, "n h w c"], lowest: float
) -> Bool[np.ndarray, "n h w"]:
    """Return the pixels that reach `lowest`, and the holes among them."""
    bright = images.max(-1) >= lowest
    return np.array([binary_fill_holes(image) for image in bright], bool)


def ellipse(shape: tuple[int, int], oval: tuple[float, ...]) -> Bool[np.ndarray, "h w"]:
    """Return the pixels whose centres lie in an upright ellipse.

    Args:
      shape: (H, W).
      oval: row and column of its centre and its half axes, as shares of the sides.

    Raises:
      ValueError: if these are not four positive numbers.
    """
    if len(oval) != 4 or not min(oval) > 0:
        raise ValueError(f"data.oval={oval}: give centre and half axes, 4 numbers > 0")
    row, column, high, wide = oval
    y, x = ((np.arange(n) + 0.5) / n for n in shape)
    return np.hypot((y[:, None] - row) / high, (x - column) / wide) <= 1
