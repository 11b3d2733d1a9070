"""Fan-beam computed tomography with a flat detector.

At the angle t a pixel at (u, v) = (right, up) from the image centre has

    lateral = u cos t + v sin t,     depth = source - u sin t + v cos t

and lands at magnified * lateral / depth from the detector's centre, where magnified is
the distance from the source to the detector.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Num

from klip_jax.operators.base_ct import Beam
from klip_jax.operators.base_ramp import ramp
from klip_jax.operators.base_views import (
    check_detectors,
    check_image,
    check_positive,
    check_shift,
    choose_angles,
)
from klip_jax.types import Image


class FanBeam(Beam):
    """Fan-beam CT: y[k, d] = mean over bin d of the line integrals of x at view k.

    At the angle t the source is at (u, v) = source_distance * (sin t, -cos t) from the
    axis of rotation, and the flat detector, on the other side, is parallel to
    (cos t, sin t), as in `ParallelBeam`: the limit of a far source. A pixel's shadow is
    the trapezoid of its central ray, magnified by magnified / depth along the detector
    and 1 / cos(fan angle) for the slant. Exact wedges differ by about
    (pixel / depth)^2 / 12.

    Args:
      in_shape: (H, W, 1).
      views: number of angles, >= 1.
      span: the angle they divide, degrees, > 0. 360 sees each line twice; 180 plus
        the fan (30 for the default distances) is the shortest complete scan.
      angles: the angles themselves, degrees; then `views`, `span` and `endpoint` are
        not used.
      start: the first angle, degrees; added to `angles` too.
      direction: 1 counter-clockwise as seen in the picture, or -1; a factor of `angles`
        too.
      endpoint: whether the last view is at the span's end: k * span / (views - 1).
      rotation_centre: where the axis is, pixels (right, up) from the image centre.
      detector_offset: bins by which the axis is seen above the detector's centre.
      source_distance: from the source to the axis, in the unit of `pixel_size`, more
        than half the diagonal; by default two diagonals.
      detector_distance: from the axis to the detector, in that unit, >= 0; by
        default one diagonal.
      detectors: number of bins; by default the fewest that see the whole diagonal.
      pitch: width of a bin, in that unit, > 0; by default the width of a pixel of the
        image centre on the detector.
      pixel_size: side of a pixel in a unit of your choice (mm, say), > 0.
      dense: hold A as a matrix; by default where it is small. A matrix serves batches
        and `solve_gram`; weights serve one or two images faster on CPU.

    `__call__` takes [H, W, 1] and returns [views, detectors] in pixel lengths.

    Raises:
      ValueError: if a setting is out of range or the image has several channels.

    Reference: Long, Fessler and Balter 2010, "3D forward and back-projection for X-ray
    CT using separable footprints", IEEE Trans. Med. Imaging 29(11).
    """

    mirrored = False

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        views: int = 24,
        span: float = 360.0,
        angles: Sequence[float] | None = None,
        start: float = 0.0,
        direction: int = 1,
        endpoint: bool = False,
        rotation_centre: Sequence[float] = (0.0, 0.0),
        detector_offset: float = 0.0,
        source_distance: float | None = None,
        detector_distance: float | None = None,
        detectors: int | None = None,
        pitch: float | None = None,
        pixel_size: float = 1.0,
        dense: bool | None = None,
    ):
        height, width = check_image(in_shape)
        check_positive(pixel_size=pixel_size, pitch=1.0 if pitch is None else pitch)
        diagonal = math.hypot(height, width)
        source, behind = (
            default if given is None else given / pixel_size
            for given, default in (
                (source_distance, 2 * diagonal),
                (detector_distance, diagonal),
            )
        )
        self.shift = check_shift(rotation_centre, detector_offset)
        reach = diagonal / 2 + math.hypot(*self.shift[:2])  # of pixels from the axis
        if not reach < source < math.inf:
            raise ValueError(
                f"source_distance={source_distance}: must exceed half the diagonal, "
                f"{reach * pixel_size:g}; move the source out of the image"
            )
        if not 0 <= behind < math.inf:
            raise ValueError(
                f"detector_distance={detector_distance}: must be >= 0; "
                "it counts from the image centre away from the source"
            )
        pitch = 1 + behind / source if pitch is None else pitch / pixel_size
        self.angles = choose_angles(
            views, span, angles, start=start, direction=direction, endpoint=endpoint
        )
        self.direction = direction
        self.span = float(span) if angles is None else 360.0
        self.fan = math.asin(diagonal / 2 / source)  # half of the fan's angle
        self.source, self.pitch = float(source), float(pitch)
        self.magnified = float(source + behind)
        if detectors is None:
            detectors = math.ceil(2 * self.magnified * math.tan(self.fan) / pitch)
        detectors = check_detectors(detectors)
        self.in_shape = (height, width, 1)
        self.out_shape = (len(self.angles), detectors)
        # On the circle around the image a pixel is widest where this is largest.
        around = np.linspace(0, math.pi, 1001)
        depth = source - reach * np.cos(around)
        ray = np.hypot(depth, reach * np.sin(around))
        self._hold(1.001 * self.magnified / pitch * (ray / depth**2).max(), dense)

    def _rays(self, cos, sin, right, up):
        """Return the tangent of the fan angle and the depth of pixels [H, W]."""
        right, up = right - self.shift[0], up - self.shift[1]
        depth = self.source - right * sin + up * cos
        return (right * cos + up * sin) / depth, depth

    def _land(self, cos, sin, right, up):
        tangent, depth = self._rays(cos, sin, right, up)
        ray = (1 + tangent * tangent) ** -0.5  # cosine of the fan angle
        centre = tangent * (self.magnified / self.pitch)
        centre = centre + (self.out_shape[1] / 2 + self.shift[2])
        cos, sin = (cos + sin * tangent) * ray, (sin - cos * tangent) * ray
        return centre, cos, sin, self.magnified / self.pitch / (depth * ray)

    def naive_inverse(self, y: Num[Array, "..."]) -> Image:
        """Reconstruct by filtered back-projection with the Ram-Lak filter.

            x = dt / a * sum_k (source / depth)^2 (h * w y cos(fan angle))[landing]

        with a the width of a bin at the image centre, `ramp`'s h and Parker's weights
        w, which count each line once: 1/2 where `span` is 360 or more. A span below 180
        plus the fan gives a limited-angle picture. Listed angles share 360 equally.

        Args:
          y: sinogram [views, detectors], pixel lengths.

        Returns:
          x [H, W, 1], image units, not clipped.

        Reference: Kak and Slaney 1988, section 3.4.2; Parker 1982, Med. Phys. 9(2).
        """
        (height, width, _), (views, detectors) = self.in_shape, self.out_shape
        bins = np.arange(detectors) - (detectors - 1) / 2 - self.shift[2]
        bins = bins * self.pitch
        tangent = bins / self.magnified
        weight = _parker(
            self.span, views, self.direction * np.arctan(tangent), self.fan
        )
        weight = weight / np.sqrt(1 + tangent**2)
        spacing = self.pitch * self.source / self.magnified
        share = math.radians(self.span) / views / spacing
        rows = share * ramp(jnp.asarray(weight, y.dtype) * y)
        right = jnp.arange(width, dtype=y.dtype) - (width - 1) / 2
        up = (height - 1) / 2 - jnp.arange(height, dtype=y.dtype)[:, None]

        def add(x, view):
            row, (cos, sin) = view
            tangent, depth = self._rays(cos, sin, right, up)
            place = tangent * (self.magnified / self.pitch)
            place = place + ((detectors + 1) / 2 + self.shift[2])
            place = jnp.clip(place, 0, detectors)  # in the row padded by a zero
            first = jnp.minimum(jnp.floor(place), detectors).astype(jnp.int32)
            low, high = (
                row.at[first + j].get(mode="promise_in_bounds") for j in (0, 1)
            )
            value = low + (place - first) * (high - low)
            return x + (self.source / depth) ** 2 * value, None

        padded = jnp.pad(rows, ((0, 0), (1, 1)))
        start = jnp.zeros((height, width), y.dtype)
        directions = self.views.astype(y.dtype)
        return lax.scan(add, start, (padded, directions))[0][..., None]


def _parker(span: float, views: int, angle: np.ndarray, fan: float) -> np.ndarray:
    """Return weights [views, detectors] that add up to 1 over the two sides of a line.

    The ray at fan angle g of the view t is that at -g of the view t + pi - 2 g.

    Args:
      span: degrees.
      views: number of angles, span / views apart.
      angle: fan angle of each bin [detectors], radians.
      fan: largest fan angle of the image, radians.
    """
    if span >= 360:
        return np.full((views, len(angle)), 0.5)
    excess = max((math.radians(span) - math.pi) / 2, fan)
    t = math.radians(span) / views * (np.arange(views)[:, None] + 0.5)
    angle = np.clip(angle, -0.999 * fan, 0.999 * fan)
    start = np.clip(t / (excess + angle), 0, 2)
    end = np.clip((math.pi + 2 * excess - t) / (excess - angle), 0, 2)
    return (np.sin(math.pi / 4 * start) * np.sin(math.pi / 4 * end)) ** 2
