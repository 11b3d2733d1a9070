"""What detectors share whose map is the energy of an image of differences, filtered.

    map = sum over channels of (1 - w) v^2 + w (G v)^2 / g

with v what was looked at, G a Gaussian and g what of white noise passes it (`filters`).
KLIP's coherent map is of the same form, so that members of one family are compared with
the same filters.

Reference: docs/theory.md, section 7.
"""

import jax.numpy as jnp

from klip_jax import struct
from klip_jax.detectors.base_map import MapDetector
from klip_jax.detectors.base_settings import check_range, check_widths
from klip_jax.filters import smooth, white_noise_passed
from klip_jax.types import Detection, Heatmap, Image, Scalar


@struct.dataclass
class FilteredDetector(MapDetector):
    """Base of those whose `look` returns an image of differences, v.

    Attributes:
      filter_width: size of the changes that are emphasised, pixels.
      filter_weight: w in [0, 1], weight of what passes the filter.
    """

    pool_width: Scalar = 3.0
    filter_width: Scalar = 2.0
    filter_weight: Scalar = 0.05

    def __post_init__(self):
        super().__post_init__()
        check_widths(filter_width=self.filter_width)
        check_range(0.0, 1.0, filter_weight=self.filter_weight)

    def energy(self, v: Image) -> Heatmap:
        """Return (1 - w) v^2 + w (G v)^2 / g, summed over channels."""
        width, weight = self.filter_width, self.filter_weight
        filtered = smooth(v, width) ** 2 / white_noise_passed(width)
        return jnp.sum((1 - weight) * v**2 + weight * filtered, -1)

    def judge(self, looked: Image) -> Detection:
        """Score the energy of what was looked at."""
        return self.of_map(self.energy(looked))
