"""What detectors with a map share: the score is the mean of its largest blocks.

    score = mean of the top share of the block sums of pool(heatmap)

Reference: docs/theory.md, section 7.
"""

import jax.numpy as jnp

from klip_jax import struct
from klip_jax.blocks import block_sum, top_mean
from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_settings import check_count, check_range, check_widths
from klip_jax.filters import pool
from klip_jax.types import Detection, Heatmap, Scalar


@struct.dataclass
class MapDetector(Detector):
    """Base of those whose score is the mean of the largest blocks of its map.

    Attributes:
      block: side of a block, pixels; divides the image.
      top_share: share of the blocks that make the score, in [0, 1]; 0 takes the largest
        block.
      pool_width: standard deviation of the Gaussian over which the map is pooled,
        pixels; 0 changes nothing.

    Raises:
      ValueError: naming the first setting that is out of range.
    """

    block: int = struct.field(pytree_node=False, default=4)
    top_share: float = struct.field(pytree_node=False, default=0.02)
    pool_width: Scalar = 0.0

    def __post_init__(self):
        check_count(block=self.block)
        check_range(0.0, 1.0, top_share=self.top_share)
        check_widths(pool_width=self.pool_width)

    def of_map(self, heatmap: Heatmap) -> Detection:
        """Reduce a map to a `Detection`; see `map_detection`."""
        share, width = self.top_share, self.pool_width
        return map_detection(
            heatmap, block=self.block, top_share=share, pool_width=width
        )


def map_detection(
    heatmap: Heatmap, *, block: int, top_share: float, pool_width: Scalar = 0.0
) -> Detection:
    """Reduce a map to a `Detection` without a standard error.

    The map is pooled (`filters.pool`) and summed over blocks; the score is the mean of
    the largest of them (`blocks.top_mean`).

    Args:
      heatmap: [H, W], bigger = more anomalous.
      block: side of a block, pixels; divides H and W.
      top_share: share of the blocks, in [0, 1); 0 takes the largest block.
      pool_width: standard deviation of the pooling Gaussian, pixels; 0 changes nothing.

    Raises:
      ValueError: if `block` does not divide the map.
    """
    pooled = pool(heatmap, pool_width)
    score = top_mean(block_sum(pooled, block), top_share)
    return Detection(score, jnp.full((), jnp.nan), pooled)
