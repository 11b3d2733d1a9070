"""Parallel-beam computed tomography with exact strip integrals.

    y[k, d] = 1/pitch * sum_p x_p * area(square pixel p  cut by  strip d of view k)

that is, the line integral in pixel lengths averaged over the width of a detector bin
(Lo 1988).
"""

import math
from collections.abc import Sequence

from jax import Array
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


class ParallelBeam(Beam):
    """Parallel-beam CT: y[k, d] = mean over bin d of the line integrals of x at view k.

    View k has the angle t = start + direction * k * span / views; a pixel at (u, v) =
    (right, up) from the axis of rotation lands at u cos t + v sin t from the detector's
    centre. docs/scanners.md has the settings of other programs.

    Args:
      in_shape: (H, W, 1).
      views: number of angles, >= 1.
      span: the angle they divide, degrees, > 0; below 180 for a limited angle.
      angles: the angles themselves, degrees; then `views`, `span` and `endpoint` are
        not used.
      start: the first angle, degrees; added to `angles` too.
      direction: 1 counter-clockwise as seen in the picture, or -1; a factor of `angles`
        too.
      endpoint: whether the last view is at the span's end: k * span / (views - 1).
      rotation_centre: where the axis is, pixels (right, up) from the image centre.
      detector_offset: bins by which the axis is seen above the detector's centre.
      detectors: number of bins; by default the fewest that see the whole diagonal of
        a centred scan.
      pitch: width of a bin, in the unit of `pixel_size`, > 0; by default one pixel.
      pixel_size: side of a pixel in a unit of your choice (mm, say), > 0.
      dense: hold A as a matrix; by default where it is small. A matrix serves batches
        and `solve_gram`; weights serve one or two images faster on CPU.

    `__call__` takes [H, W, 1] and returns [views, detectors] in pixel lengths; times
    `pixel_size` they are in its unit.

    Raises:
      ValueError: if a setting is out of range or the image has several channels.

    Reference: Lo 1988, "Strip and line path integrals with a square pixel matrix",
    IEEE Trans. Med. Imaging 7(4).
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        views: int = 24,
        span: float = 180.0,
        angles: Sequence[float] | None = None,
        start: float = 0.0,
        direction: int = 1,
        endpoint: bool = False,
        rotation_centre: Sequence[float] = (0.0, 0.0),
        detector_offset: float = 0.0,
        detectors: int | None = None,
        pitch: float | None = None,
        pixel_size: float = 1.0,
        dense: bool | None = None,
    ):
        height, width = check_image(in_shape)
        pitch = pixel_size if pitch is None else pitch
        check_positive(pixel_size=pixel_size, pitch=pitch)
        pitch = float(pitch / pixel_size)
        self.angles = choose_angles(
            views, span, angles, start=start, direction=direction, endpoint=endpoint
        )
        self.shift = check_shift(rotation_centre, detector_offset)
        self.span = float(span) if angles is None else 180.0
        if detectors is None:
            detectors = math.ceil(math.hypot(height, width) / pitch)
        detectors = check_detectors(detectors)
        self.in_shape = (height, width, 1)
        self.out_shape = (len(self.angles), detectors)
        self.pitch = pitch
        self.mirrored = not any(self.shift)
        self._hold(1 / pitch, dense)

    def _land(self, cos, sin, right, up):
        to_right, to_up, offset = self.shift
        centre = ((right - to_right) * cos + (up - to_up) * sin) / self.pitch
        centre = centre + (self.out_shape[1] / 2 + offset)
        return centre, cos, sin, 1 / self.pitch

    def naive_inverse(self, y: Num[Array, "..."]) -> Image:
        """Reconstruct by filtered back-projection with the Ram-Lak filter.

            x = dt * A^T (h * y),   h[0] = 1/4, h[j odd] = -1/(pi j)^2, h[j even] = 0

        The powers of `pitch` cancel. The views share min(span, 180) degrees: exact in
        the limit for 180 and its multiples, a limited-angle picture below. Listed
        angles share 180.

        Args:
          y: sinogram [views, detectors], pixel lengths.

        Returns:
          x [H, W, 1], image units, not clipped.

        Reference: Kak and Slaney 1988, chapter 3, eq. 61 (the filter).
        """
        share = math.radians(min(self.span, 180.0)) / self.out_shape[0]
        return share * self.adjoint(ramp(y))
