"""Where inside an image: do the blocks with the anomaly rank above the others?

Localization is the mean over images of `block_auroc`. That between images is another
question, `metrics.auroc`. Bigger is more out-of-distribution (OOD) in both.
"""

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Num

from klip_jax.bootstrap import mean_of
from klip_jax.metrics import aurocs


def block_auroc(
    heatmap: Num[ArrayLike, "h w"],
    mask: Bool[ArrayLike, "h w"],
    region: Bool[ArrayLike, "h w"],
    block: int,
) -> float:
    """Return the AUROC of the blocks of one image; see `block_aurocs`."""
    one, odd, where = (np.asarray(image)[None] for image in (heatmap, mask, region))
    return float(block_aurocs(one, odd, where, block)[0])


def block_aurocs(
    heatmaps: Num[ArrayLike, "n h w"],
    masks: Bool[ArrayLike, "n h w"],
    regions: Bool[ArrayLike, "n h w"],
    block: int,
) -> Float[np.ndarray, " n"]:
    """Return the AUROC of the blocks of each image, NaN if they are of one class.

    A block's score is the sum of its pixels; it is positive if any of its pixels is in
    the mask, and counts if any is in the region. A map that is not finite gives NaN.

    Args:
      heatmaps: bigger is more out-of-distribution.
      masks: where the anomaly is.
      regions: where the question is asked.
      block: side of a block, pixels; divides H and W.

    Raises:
      ValueError: if `block` does not divide H and W.
    """
    positive, kept = block_any(masks, block), block_any(regions, block)
    return aurocs(block_sums(heatmaps, block), positive, kept)


def block_sums(images: Num[ArrayLike, "n h w"], block: int) -> Float[np.ndarray, "n b"]:
    """Return the sum of the pixels of each block of each image."""
    return _blocks(images, block).sum(-1, dtype=np.float64)


def block_any(images: Bool[ArrayLike, "n h w"], block: int) -> Bool[np.ndarray, "n b"]:
    """Return whether any pixel of each block of each image is true."""
    return _blocks(images, block).any(-1)


def localization(heatmaps, masks, regions, block: int) -> float:
    """Return the mean over images of `block_auroc`, images of one class left out."""
    images = zip(heatmaps, masks, regions, strict=True)
    values = np.array([block_auroc(*image, block) for image in images])
    return float(mean_of(values)(np.ones((1, len(values))))[0])


def position_template(
    heatmaps: Num[ArrayLike, "n h w"],
    is_id: Bool[ArrayLike, " n"],
    total: Float[np.ndarray, "h w"] | None = None,
    count: int | None = None,
) -> Float[np.ndarray, "n h w"]:
    """Return, for each image, the mean map of the OTHER in-distribution images.

    The control that has not seen the image: what a map gets for anatomy alone.

    Args:
      heatmaps: of all images, or of some of them.
      is_id: which of these are in-distribution.
      total, count: sum and number of ALL in-distribution maps; None: of those given.

    Returns:
      Mean maps; NaN where there is no other in-distribution image.
    """
    maps, own = np.asarray(heatmaps, np.float64), np.asarray(is_id)
    total = maps[own].sum(0) if total is None else total
    others = (own.sum() if count is None else count) - own
    rest = total - np.where(own[:, None, None], maps, 0)
    # Not 0 / 0: an image without others gets NaN without a warning.
    return rest / np.where(others, others, np.nan)[:, None, None]


def _blocks(images, block):
    """Return [N, H/b * W/b, b * b]: the pixels of each block of images [N, H, W]."""
    images = np.asarray(images)
    n, height, width = images.shape
    if block < 1 or height % block or width % block:
        raise ValueError(f"block={block} does not divide a {height}x{width} image")
    rows, columns = height // block, width // block
    split = images.reshape(n, rows, block, columns, block)
    return split.swapaxes(2, 3).reshape(n, rows * columns, block * block)
