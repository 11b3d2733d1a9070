"""Parallel-beam computed tomography with exact strip integrals.

    y[k, d] = 1/pitch * sum_p x_p * area(square pixel p  cut by  strip d of view k)

that is, the line integral in pixel lengths averaged over the width of a detector bin
(Lo 1988). A unit square seen at angle t projects to a trapezoid, the convolution of
boxes of widths |cos t| and |sin t| (Long, Fessler and Balter 2010, section III), and a
strip's area is the difference of the trapezoid's integral between the strip's edges.
"""

import functools
import math
from collections.abc import Iterator

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.operators.base import Operator

DENSE_ENTRIES = 2**24  # a matrix of up to 64 MiB is held dense
EXACT_ROWS = 4096  # and for up to that many measurements A A^T is diagonalised


class ParallelBeam(Operator):
    """Parallel-beam CT: y[k, d] = mean over bin d of the line integrals of x at view k.

    View k has the angle t = k * span / views; a pixel at (u, v) = (right, up) from the
    image centre lands at u cos t + v sin t from the detector's centre.

    The size decides how A is held; the numbers agree. A small A (`DENSE_ENTRIES`;
    64x64 with 24 views is small) is a matrix, and if it has at most `EXACT_ROWS` rows
    A A^T is diagonalised at build time, which makes `solve_gram` exact. A large A is
    the first bin that each pixel touches at each view and the weights of the next few:
    A scatters, its transpose gathers, `solve_gram` iterates.

    Args:
      in_shape: (H, W, 1).
      views: number of angles, >= 1.
      span: the angle they divide, degrees, > 0.
      detectors: number of bins; by default the fewest that see the whole diagonal.
      pitch: width of a bin, pixel lengths, > 0.

    `__call__` takes [H, W, 1] and returns [views, detectors] in pixel lengths.

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
        detectors: int | None = None,
        pitch: float = 1.0,
    ):
        height, width, channels = in_shape
        if channels != 1:
            raise ValueError(f"in_shape={in_shape}: CT takes 1 channel; vmap over them")
        if views < 1 or span <= 0 or pitch <= 0:
            raise ValueError(
                f"views={views}, span={span}, pitch={pitch}: all must be positive; "
                "give a count, degrees and pixel lengths"
            )
        if detectors is None:
            detectors = math.ceil(math.hypot(height, width) / pitch)
        if detectors < 1:
            raise ValueError(
                f"detectors={detectors}: must be >= 1; leave it out to see everything"
            )
        self.in_shape, self.out_shape = (height, width, 1), (views, detectors)
        self.span, self.pitch = float(span), float(pitch)

        rows, columns = views * detectors, height * width
        self.dense = rows * columns <= DENSE_ENTRIES
        self.exact = self.dense and rows <= EXACT_ROWS
        strips = _strips(self.in_shape, self.out_shape, self.span, self.pitch)
        if self.dense:
            matrix = _dense(strips, (views, detectors, columns))
            self.matrix = jnp.asarray(matrix.reshape(rows, columns))
        else:
            strips = [(first, jnp.asarray(weights)) for first, weights in strips]
            self.first = jnp.asarray([first for first, _ in strips])
            self.weights = jnp.stack([weights for _, weights in strips])
        if self.exact:
            even, odd = _fold(matrix)
            self.even_power, self.even_basis = _eigen(even)
            self.odd_power, self.odd_basis = _eigen(odd)

    def __call__(self, x: Array) -> Array:
        chex.assert_shape(x, self.in_shape)
        x = x.ravel()
        if self.dense:
            return _matvec(self.matrix.astype(x.dtype), x).reshape(self.out_shape)
        return _scatter(self.first, self.weights, x, self.out_shape[1])

    def solve_gram(
        self,
        r: Array,
        variance: Array,
        noise_var: Array,
        *,
        tol: float = 1e-5,
        maxiter: int = 200,
    ) -> Array:
        """Solve (variance * A A^T + noise_var * I) u = r, exactly if `self.exact`.

        Args:
          r: right-hand side [views, detectors].
          variance: scalar > 0, prior variance of each pixel, squared image units.
          noise_var: scalar > 0, noise variance, squared pixel lengths.
          tol, maxiter: of the iteration; not used where the solve is exact.

        Returns:
          u [views, detectors].
        """
        if not self.exact:
            return super().solve_gram(r, variance, noise_var, tol=tol, maxiter=maxiter)

        def solve(half, power, basis):
            basis = basis.astype(r.dtype)
            c = jnp.matmul(half.ravel(), basis, precision="highest")
            c = c / (variance * power.astype(r.dtype) + noise_var)
            return _matvec(basis, c).reshape(half.shape)

        even, odd = _fold(r)
        even = solve(even, self.even_power, self.even_basis)
        odd = solve(odd, self.odd_power, self.odd_basis)
        return _unfold(even, odd)

    def naive_inverse(self, y: Array) -> Array:
        """Reconstruct by filtered back-projection with the Ram-Lak filter.

            x = dt * A^T (h * y),   h[0] = 1/4, h[j odd] = -1/(pi j)^2, h[j even] = 0

        The powers of `pitch` cancel. The views share min(span, 180) degrees: exact in
        the limit for 180 and its multiples, a limited-angle picture below.

        Args:
          y: sinogram [views, detectors], pixel lengths.

        Returns:
          x [H, W, 1], image units, not clipped.

        Reference: Kak and Slaney 1988, chapter 3, eq. 61 (the filter).
        """
        views, detectors = self.out_shape
        offset = np.fft.fftfreq(2 * detectors, 1 / (2 * detectors))
        odd = offset % 2 == 1
        h = np.where(odd, -1 / (np.pi * np.where(odd, offset, 1)) ** 2, 0.0)
        h[0] = 1 / 4
        ramp = jnp.asarray(np.fft.rfft(h).real, y.dtype)
        n = 2 * detectors  # zero padding: the convolution must not wrap around
        filtered = jnp.fft.irfft(ramp * jnp.fft.rfft(y, n), n)[:, :detectors]
        return math.radians(min(self.span, 180.0)) / views * self.adjoint(filtered)


def _strips(
    in_shape: tuple[int, int, int],
    out_shape: tuple[int, int],
    span: float,
    pitch: float,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield for each view the first bin [HW] of each pixel and its weights [taps, HW].

    Bins are counted from `taps` before the detector, so that every pixel has `taps`
    bins: what falls outside the detector lands in margins that are cut off later.
    """
    (height, width, _), (views, detectors) = in_shape, out_shape
    taps = int(math.sqrt(2) / pitch) + 2
    row, column = np.mgrid[:height, :width].reshape(2, -1)
    right, up = column - (width - 1) / 2, (height - 1) / 2 - row
    for angle in np.deg2rad(span / views * np.arange(views)):
        narrow, wide = sorted((abs(np.cos(angle)), abs(np.sin(angle))))
        centre = right * np.cos(angle) + up * np.sin(angle)
        first = np.floor((centre - (narrow + wide) / 2) / pitch + detectors / 2)
        bins = first + np.arange(taps + 1)[:, None]
        edges = (bins - detectors / 2) * pitch - centre
        weights = np.diff(_area_below(edges, wide, max(narrow, 1e-6)), axis=0) / pitch
        yield np.clip(first, -taps, detectors).astype(np.int32) + taps, weights


def _area_below(t: np.ndarray, wide: float, narrow: float) -> np.ndarray:
    """Integrate box(wide) convolved with box(narrow), of unit area, up to `t`."""

    def ramp(u):  # second integral of box(wide)
        inside = np.clip(u / wide + 0.5, 0.0, 1.0)
        return wide * inside**2 / 2 + np.maximum(u - wide / 2, 0.0)

    return (ramp(t + narrow / 2) - ramp(t - narrow / 2)) / narrow


def _dense(strips, shape: tuple[int, int, int]) -> np.ndarray:
    """Write the strips into a matrix [views, detectors, HW]."""
    _, detectors, columns = shape
    matrix = np.zeros(shape)
    for view, (first, weights) in zip(matrix, strips, strict=True):
        taps = len(weights)
        padded = np.zeros((detectors + 2 * taps, columns))
        for tap in range(taps):
            padded[first + tap, np.arange(columns)] += weights[tap]
        view[:] = padded[taps : taps + detectors]
    return matrix


@functools.partial(jax.jit, static_argnums=3)
def _scatter(first: Array, weights: Array, x: Array, detectors: int) -> Array:
    """Add the pixels `x` [HW] into their bins; returns [views, detectors]."""
    taps = weights.shape[1]

    def project(view):
        first, weights = view
        bins = jnp.zeros(detectors + 2 * taps, x.dtype)
        return bins.at[first + jnp.arange(taps)[:, None]].add(
            weights.astype(x.dtype) * x, mode="promise_in_bounds"
        )

    # One view at a time: three times faster on CPU than one scatter for all.
    return jax.lax.map(project, (first, weights))[:, taps : taps + detectors]


def _matvec(matrix: Array, x: Array) -> Array:
    # As a column: XLA then does not transpose the matrix in every call under vmap.
    return jnp.matmul(matrix, x[:, None], precision="highest")[:, 0]


def _fold(y):
    """Split [views, detectors, ...] into its even and odd parts under u -> -u.

    Turning the image by 180 degrees reverses the detector, so A A^T does not mix the
    two, and two eigenproblems of half the size cost a quarter of one.
    """
    xp = jnp if isinstance(y, Array) else np
    half = y.shape[1] // 2
    left, right = y[:, :half], y[:, ::-1][:, :half]
    middle = y[:, half : y.shape[1] - half]
    even = xp.concatenate([(left + right) * math.sqrt(0.5), middle], axis=1)
    return even, (left - right) * math.sqrt(0.5)


def _unfold(even: Array, odd: Array) -> Array:
    """Invert `_fold`."""
    half = odd.shape[1]
    left = (even[:, :half] + odd) * math.sqrt(0.5)
    right = (even[:, :half] - odd) * math.sqrt(0.5)
    return jnp.concatenate([left, even[:, half:], right[:, ::-1]], axis=1)


def _eigen(rows: np.ndarray) -> tuple[Array, Array]:
    """Return eigenvalues [n] and eigenvectors [n, n] of A A^T, A = `rows` [..., HW]."""
    rows = rows.reshape(-1, rows.shape[-1])
    power, basis = np.linalg.eigh(rows @ rows.T)  # float64: keeps small eigenvalues
    return jnp.asarray(np.maximum(power, 0.0)), jnp.asarray(basis)
