"""What the geometries of computed tomography share: how A is held, and its inverse.

    y[k, d] = sum_p x_p * weight of pixel p in bin d of view k

that is, the line integral in pixel lengths averaged over the width of a detector bin;
`base_footprints` has the weights.
"""

import math
from typing import Any

import chex
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Num

from klip_jax.operators import base_footprints
from klip_jax.operators.base import Operator
from klip_jax.types import Image, Scalar

DENSE_ENTRIES = 2**24  # a matrix of up to 64 MiB is held dense
EXACT_ROWS = 2048  # and A A^T is diagonalised in blocks of up to that many rows
STORED_WEIGHTS = 2**26  # up to 256 MiB of weights are held, more are computed


class Beam(Operator):
    """CT of any geometry: a subclass says where pixels land and calls `_hold`.

    The size decides how A is held; the numbers agree. A small A (`DENSE_ENTRIES`;
    64x64 with 24 views is small) is a matrix, and if A A^T falls into blocks of at most
    `EXACT_ROWS` rows they are diagonalised at build time, which makes `solve_gram`
    exact. A larger A is the first bin that each pixel touches at each view and the
    weights of the next few, held (`STORED_WEIGHTS`) or computed in every call, then
    with an error of about 1e-5: A scatters, its transpose gathers, `solve_gram`
    iterates.
    """

    angles: tuple[float, ...]  # of the views, degrees
    mirrored: bool  # does turning the image by 180 degrees reverse the detector?

    def _hold(self, scale: float, dense: bool | None) -> None:
        """Build A for pixels of side `scale` bins at most, once all else is set."""
        (height, width, _), (views, detectors) = self.in_shape, self.out_shape
        rows, columns = views * detectors, height * width
        self.taps = base_footprints.most_taps(scale)
        small = rows * columns <= DENSE_ENTRIES
        self.dense = small if dense is None else bool(dense)
        blocks = 2 if self.mirrored else 1
        self.exact = self.dense and rows <= blocks * EXACT_ROWS
        self.stored = not self.dense and (views * self.taps * columns <= STORED_WEIGHTS)
        angles = np.deg2rad(self.angles)
        self.views = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1))
        directions = list(zip(np.cos(angles), np.sin(angles), strict=True))
        first = [self._first(*direction) for direction in directions]
        weights = map(self._weights, first, *zip(*directions, strict=True))
        if self.dense:
            shadows = zip(first, weights, strict=True)
            matrix = base_footprints.dense(shadows, views, detectors, columns)
            self.matrix = jnp.asarray(matrix.reshape(rows, columns))
        else:
            self.first = jnp.asarray(np.stack(first))
        if self.stored:
            self.weights = jnp.stack([jnp.asarray(np.stack(w)) for w in weights])
        if self.exact:
            even, odd = _fold(matrix, self.mirrored)
            self.even_power, self.even_basis = _eigen(even)
            self.odd_power, self.odd_basis = _eigen(odd)

    def _land(self, cos, sin, right, up):
        """Return where pixels land, cos and sin of their sides, and their scale."""
        raise NotImplementedError

    def _lands(self, cos, sin):
        xp = jnp if isinstance(cos, Array) else np
        height, width, _ = self.in_shape
        right = xp.arange(width, dtype=cos.dtype) - (width - 1) / 2
        up = (height - 1) / 2 - xp.arange(height, dtype=cos.dtype)[:, None]
        return self._land(cos, sin, right, up)

    def _first(self, cos, sin):
        """Return the first bins [H, W] of the view with that cos and sin."""
        sizes = dict(taps=self.taps, detectors=self.out_shape[1])
        return base_footprints.first_bins(*self._lands(cos, sin), **sizes)

    def _weights(self, first, cos, sin):
        """Return the weights of the `taps` bins from `first` on, each [H, W]."""
        lands = self._lands(cos, sin)
        return base_footprints.weights(first, *lands, taps=self.taps)

    def _held(self):
        """Return arrays [views, ...] and the function from one view to its shadow."""
        if self.stored:
            return (self.first, self.weights), lambda view: view

        def computed(view):
            first, (cos, sin) = view
            return first, self._weights(first, cos, sin)

        return (self.first, self.views), computed

    def __call__(self, x: Image) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        if self.dense:
            y = _matvec(self.matrix.astype(x.dtype), x.ravel())
            return y.reshape(self.out_shape)
        views, shadows = self._held()
        sizes = dict(taps=self.taps, detectors=self.out_shape[1])
        return base_footprints.project(x[..., 0], views, shadows, **sizes)

    def adjoint(self, y: Num[Array, "..."]) -> Image:
        if self.dense:
            return super().adjoint(y)
        chex.assert_shape(y, self.out_shape)
        (height, width, _), (views, shadows) = self.in_shape, self._held()
        x = base_footprints.back_project(
            y, views, shadows, (height, width), taps=self.taps
        )
        return x[..., None]

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar
    ) -> Num[Array, "..."]:
        """Solve (variance * A A^T + noise_var * I) u = r, exactly if `self.exact`.

        Args:
          r: right-hand side [views, detectors].
          variance: scalar > 0, prior variance of each pixel, squared image units.
          noise_var: scalar > 0, noise variance, squared pixel lengths.

        Returns:
          u [views, detectors].
        """
        if not self.exact:
            return super().solve_gram(r, variance, noise_var)

        def solve(half, power, basis):
            basis = basis.astype(r.dtype)
            c = jnp.matmul(half.ravel(), basis, precision="highest")
            c = c / (variance * power.astype(r.dtype) + noise_var)
            return _matvec(basis, c).reshape(half.shape)

        even, odd = _fold(r, self.mirrored)
        even = solve(even, self.even_power, self.even_basis)
        odd = solve(odd, self.odd_power, self.odd_basis)
        return _unfold(even, odd)


def ramp(y: Float[Array, "views detectors"]) -> Float[Array, "views detectors"]:
    """Convolve the rows of `y` [views, detectors] with the Ram-Lak filter.

        h[0] = 1/4,   h[j odd] = -1/(pi j)^2,   h[j even] = 0

    Reference: Kak and Slaney 1988, chapter 3, eq. 61, for bins of width 1.
    """
    n = 2 * y.shape[1]  # zero padding: the convolution must not wrap around
    offset = np.fft.fftfreq(n, 1 / n)
    odd = offset % 2 == 1
    h = np.where(odd, -1 / (np.pi * np.where(odd, offset, 1)) ** 2, 0.0)
    h[0] = 1 / 4
    gain = jnp.asarray(np.fft.rfft(h).real, y.dtype)
    return jnp.fft.irfft(gain * jnp.fft.rfft(y, n), n)[:, : y.shape[1]]


def check_image(in_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return height and width; raise a ValueError if there are several channels."""
    height, width, channels = in_shape
    if channels != 1:
        raise ValueError(f"in_shape={in_shape}: CT takes 1 channel; vmap over them")
    return height, width


def check_positive(**settings: float) -> None:
    """Raise a ValueError if a length is not positive and finite."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(
                f"{name}={value}: must be positive and finite; give a length"
            )


def check_detectors(detectors: float) -> int:
    """Return the number of bins; raise a ValueError if it is not a count."""
    if detectors != int(detectors) or detectors < 1:
        raise ValueError(
            f"detectors={detectors}: must be a whole number >= 1; "
            "leave it out to see everything"
        )
    return int(detectors)


def choose_angles(views: float, span: float, angles: Any) -> tuple[float, ...]:
    """Return the angles of all views, degrees: `angles`, or k * span / views.

    Raises:
      ValueError: if there is no angle, or one is not finite.
    """
    if angles is not None:
        listed = np.asarray(angles, float)
        if listed.ndim != 1 or not listed.size or not np.isfinite(listed).all():
            raise ValueError(
                f"angles={angles}: must be a list of finite numbers; give degrees, or "
                "leave them out for views and span"
            )
        return tuple(listed.tolist())
    if views != int(views) or views < 1 or not 0 < span < math.inf:
        raise ValueError(
            f"views={views}, span={span}: must be a whole number >= 1 and a positive "
            "angle; give a count and degrees"
        )
    return tuple((span / views * np.arange(int(views))).tolist())


def _matvec(matrix: Array, x: Array) -> Array:
    # As a column: XLA then does not transpose the matrix in every call under vmap.
    return jnp.matmul(matrix, x[:, None], precision="highest")[:, 0]


def _fold(y, mirrored: bool):
    """Split [views, detectors, ...] into its even and odd parts under u -> -u.

    Where turning the image by 180 degrees reverses the detector, A A^T does not mix the
    two, and two eigenproblems of half the size cost a quarter of one. Elsewhere
    everything is "even".
    """
    xp = jnp if isinstance(y, Array) else np
    half = y.shape[1] // 2 if mirrored else 0
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
