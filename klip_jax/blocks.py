"""Maps by blocks of pixels: what a score counts, and what an alarm points at.

A pixel of a map is mostly noise; the sum over b x b of them is not. The score of an
image is the mean of its largest blocks, because an anomaly fills few of them.

Reference: docs/theory.md, section 7.
"""

import jax
from jax import Array
from jaxtyping import Float


def block_sum(image: Float[Array, "*n h w"], block: int) -> Float[Array, "*n hb wb"]:
    """Sum [..., H, W] over blocks of block x block pixels: [..., H/b, W/b].

    Raises:
      ValueError: if `block` does not divide both sides.
    """
    *lead, height, width = image.shape
    check_block(block, (height, width))
    shape = (*lead, height // block, block, width // block, block)
    return image.reshape(shape).sum((-3, -1))


def top_mean(block_map: Float[Array, "hb wb"], top_share: float) -> Float[Array, ""]:
    """Return the mean of the largest share of the blocks, of at least one.

    Args:
      block_map: [H/b, W/b].
      top_share: in [0, 1); 0 takes the largest block.
    """
    count = max(1, round(top_share * block_map.size))
    return jax.lax.top_k(block_map.ravel(), count)[0].mean()


def check_block(block: int, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless `block` divides the first two sides of `shape`."""
    if block < 1 or shape[0] % block or shape[1] % block:
        divisors = [b for b in range(1, 33) if not (shape[0] % b or shape[1] % b)]
        raise ValueError(
            f"block={block} does not divide a {shape[0]}x{shape[1]} image; choose one "
            f"of {divisors}"
        )
