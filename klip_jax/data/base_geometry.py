"""Where an image comes from, and how what is seen in it goes back there.

An input [H, W] is cut to a box, resized and padded to what a network takes [h, w]; a
map [h, w] loses the padding, is resized to the box and lies in the input's [H, W]
again, NaN where the input was cut off.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from klip_jax.resize import bilinear_matrix

PADDINGS = {"edge": "edge", "reflect": "symmetric", "zero": "constant"}
"""What padded pixels show, and what numpy calls it."""


class Place(NamedTuple):
    """Where an image lies on the disk.

    Attributes:
      file: its absolute path.
      number: of the slice or frame in the file, as it is stored; 0 where there is one.
      axes: of a volume: the stored axes that slices, rows and columns run along, each
        with its direction, ((2, 1), (1, -1), (0, -1)); () for pictures and frames.
    """

    file: str
    number: int = 0
    axes: tuple[tuple[int, int], ...] = ()

    def laid(self, picture: Shaped[np.ndarray, "h w"]) -> np.ndarray:
        """Return an image as the slice `number` of the volume has it stored."""
        (_, _), (rows, down), (columns, right) = self.axes
        stored = picture[::down, ::right]
        return stored if rows < columns else stored.T

    def shown(self, stored: Shaped[np.ndarray, "..."]) -> np.ndarray:
        """Return a stored slice as the image; the inverse of `laid`."""
        (_, _), (rows, down), (columns, right) = self.axes
        picture = stored if rows < columns else stored.T
        return picture[::down, ::right]


class Fit(NamedTuple):
    """What was done to the size of an image.

    Attributes:
      source: (H, W) of the input.
      box: (top, left, height, width) of what is kept of it.
      resized: (height, width) that the box becomes.
      corner: (top, left) of that in the padded image.
      shape: (h, w) of the image.
      padding: what the padded pixels show, of `PADDINGS`.
    """

    source: tuple[int, int]
    box: tuple[int, int, int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]
    shape: tuple[int, int]
    padding: str = "edge"

    @property
    def pads(self) -> bool:
        """Whether any pixel is padded."""
        return self.resized != self.shape

    @property
    def inside(self) -> Bool[np.ndarray, "h w"]:
        """Which pixels are of the input and not padded."""
        kept = np.zeros(self.shape, bool)
        kept[self._window] = True
        return kept

    @property
    def _window(self):
        return tuple(
            slice(first, first + size)
            for first, size in zip(self.corner, self.resized, strict=True)
        )

    def images(
        self, images: Float[np.ndarray, "n H W c"]
    ) -> Float[np.ndarray, "n h w c"]:
        """Return inputs as the network takes them, float32."""
        images = _resized(self._cut(images), self.resized)
        if not self.pads:
            return images
        after = (
            size - first - kept
            for size, first, kept in zip(
                self.shape, self.corner, self.resized, strict=True
            )
        )
        widths = (0, 0), *zip(self.corner, after, strict=True), (0, 0)
        return np.pad(images, widths, mode=PADDINGS[self.padding])  # type: ignore[call-overload]

    def regions(self, regions: Bool[np.ndarray, "n H W"]) -> Bool[np.ndarray, "n h w"]:
        """Return regions likewise; what fills half a pixel is in, padding is out."""
        out = np.zeros((len(regions), *self.shape), bool)
        cut = self._cut(np.asarray(regions))
        if cut.shape[1:] == self.resized:
            out[:, *self._window] = cut
        else:
            grey = _resized(cut[..., None], self.resized)[..., 0]
            out[:, *self._window] = grey >= 0.5
        return out

    def back(self, maps: Shaped[np.ndarray, "n h w"]) -> Float[np.ndarray, "n H W"]:
        """Return maps of images [h, w] as maps of the inputs [H, W], float32.

        Pixels of the input that were cut off, and those next to a NaN, are NaN.
        """
        top, left, height, width = self.box
        inner = np.asarray(maps)[:, *self._window, None]
        out = np.full((len(inner), *self.source), np.nan, np.float32)
        resized = _resized(inner, (height, width))
        out[:, top : top + height, left : left + width] = resized[..., 0]
        return out

    def spacing(self, source: tuple[float, float] | None) -> tuple[float, float] | None:
        """Return the millimetres of an image's pixel, from those of the input's."""
        if source is None:
            return None
        rows, columns = (
            mm * old / new
            for mm, old, new in zip(source, self.box[2:], self.resized, strict=True)
        )
        return rows, columns

    def pixel(self, row: float, column: float) -> tuple[float, float]:
        """Return where in the input the middle of a pixel of the image lies."""

        def along(axis, at):
            scale = self.box[2 + axis] / self.resized[axis]
            return self.box[axis] + (at - self.corner[axis] + 0.5) * scale - 0.5

        return along(0, row), along(1, column)

    def _cut(self, arrays):
        if arrays.shape[1:3] != self.source:
            raise ValueError(
                f"images of {arrays.shape[1:3]} pixels, not {self.source} as before"
            )
        top, left, height, width = self.box
        return arrays[:, top : top + height, left : left + width]


def _resized(images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    images = np.asarray(images, np.float32)
    if images.shape[1:3] == tuple(shape):
        return images
    rows, columns = (
        bilinear_matrix(old, new, antialias=True)
        for old, new in zip(images.shape[1:3], shape, strict=True)
    )
    down = np.einsum("ih,nhwc->niwc", rows, images, optimize=True)
    return np.einsum("jw,niwc->nijc", columns, down, optimize=True)
