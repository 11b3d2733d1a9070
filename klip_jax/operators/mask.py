"""Inpainting: y is the list of the pixels that are seen.

    y = S x,   S the rows of the identity that belong to seen pixels,   S S^T = I

Keeping the seen pixels as a list [seen, C], not as an image with holes, gives y no
entries without noise, and makes the gram matrix the identity.
"""

import os
import pathlib

import chex
import jax.numpy as jnp
import numpy as np
import PIL.Image
from jax import Array
from jaxtyping import Num

from klip_jax.operators.base import Operator
from klip_jax.types import Image, Scalar


class Mask(Operator):
    """Inpainting with any mask: y [seen, C] holds the seen pixels in row order.

    Args:
      in_shape: (H, W, C).
      seen: boolean [H, W], True where the pixel is measured; None sees all. Or the
        path of a file with it: .npy, or a grey or black-and-white .png; non-zero is
        True.

    `__call__` takes [H, W, C] and returns [seen, C] in the unit of x; all channels of a
    pixel are seen or none.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if `seen` has another shape than the image, or is False everywhere, or
        its file is broken or of another kind.
    """

    def __init__(self, in_shape: tuple[int, int, int], seen=None):
        height, width, channels = in_shape
        if isinstance(seen, str | os.PathLike):
            seen = _read(pathlib.Path(seen))
        seen = (
            np.ones((height, width), bool) if seen is None else np.asarray(seen, bool)
        )
        if seen.shape != (height, width):
            raise ValueError(
                f"seen has shape {seen.shape}: must be {(height, width)}; "
                "one boolean a pixel, without channels"
            )
        if not seen.any():
            raise ValueError("the mask sees no pixel: must see at least 1; shrink it")
        self.pixels = jnp.asarray(np.flatnonzero(seen))
        self.in_shape = (height, width, channels)
        self.out_shape = (int(seen.sum()), channels)

    def __call__(self, x: Image) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        x = x.reshape(-1, self.in_shape[-1])
        return x.at[self.pixels].get(
            mode="promise_in_bounds", unique_indices=True, indices_are_sorted=True
        )

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar
    ) -> Num[Array, "..."]:
        """Solve exactly: S S^T = I, so u = r / (variance + noise_var), [seen, C]."""
        return r / (variance + noise_var)


class Box(Mask):
    """Inpainting with a rectangular hole; by default the central quarter of the area.

    Args:
      in_shape: (H, W, C).
      top, left: first row and column of the hole, pixels; None centres it.
      height, width: size of the hole, pixels; None is half of the image's.

    Raises:
      ValueError: if the hole leaves the image, is empty or covers all of it.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        top: int | None = None,
        left: int | None = None,
        height: int | None = None,
        width: int | None = None,
    ):
        rows, columns, _ = in_shape
        height = rows // 2 if height is None else height
        width = columns // 2 if width is None else width
        top = (rows - height) // 2 if top is None else top
        left = (columns - width) // 2 if left is None else left
        bottom, right = top + height, left + width
        if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
            raise ValueError(
                f"hole of rows {top}..{bottom} and columns {left}..{right}: must be "
                f"non-empty and inside {rows}x{columns}; move or shrink it"
            )
        seen = np.ones((rows, columns), bool)
        seen[top:bottom, left:right] = False
        super().__init__(in_shape, seen)


class Random(Mask):
    """Inpainting from a random subset of the pixels, fixed by `seed`.

    Args:
      in_shape: (H, W, C).
      keep: fraction of the pixels that are seen, in (0, 1]; rounded, at least one.
      seed: of the subset, independent of every other randomness.

    Raises:
      ValueError: if `keep` is not in (0, 1].
    """

    def __init__(
        self, in_shape: tuple[int, int, int], *, keep: float = 0.5, seed: int = 0
    ):
        if not 0 < keep <= 1:
            raise ValueError(f"keep={keep}: must be in (0, 1]; it is a fraction")
        shape = in_shape[:2]
        pixels = np.random.default_rng(seed).permutation(np.prod(shape))
        seen = pixels.reshape(shape) < max(1, round(keep * pixels.size))
        super().__init__(in_shape, seen)


class Half(Mask):
    """Inpainting where one half of the image is missing.

    Args:
      in_shape: (H, W, C); of an odd number of rows or columns the larger half is seen.
      side: the missing half: "left", "right", "top" or "bottom".

    Raises:
      ValueError: if `side` is another word, or the image has no such half.
    """

    def __init__(self, in_shape: tuple[int, int, int], *, side: str = "right"):
        rows, columns, _ = in_shape
        missing: dict[str, tuple[slice, ...]] = {
            "left": np.s_[:, : columns // 2],
            "right": np.s_[:, (columns + 1) // 2 :],
            "top": np.s_[: rows // 2, :],
            "bottom": np.s_[(rows + 1) // 2 :, :],
        }
        if side not in missing:
            raise ValueError(f"side={side!r}: must be one of {sorted(missing)}")
        seen = np.ones((rows, columns), bool)
        seen[missing[side]] = False
        super().__init__(in_shape, seen)


def _read(path: pathlib.Path) -> np.ndarray:
    """Read a mask; non-zero is True."""
    try:
        suffix = path.suffix.lower()
        if suffix == ".npy":
            mask = np.load(path, allow_pickle=False)
        elif suffix == ".png":
            with PIL.Image.open(path, formats=["PNG"]) as image:
                if image.mode not in ("1", "L", "I;16", "I"):
                    raise ValueError(f"mode {image.mode}; convert it to grey")
                mask = np.asarray(image)
        else:
            raise ValueError("must end in .npy or .png; save it as one of them")
    except FileNotFoundError:
        raise
    except (
        *(OSError, ValueError, SyntaxError, EOFError),
        PIL.Image.DecompressionBombError,
    ) as error:
        raise ValueError(f"{path}: not a mask ({error})") from None
    return mask != 0
