"""What the geometries of computed tomography share: how A is held, and its inverse.

    y[k, d] = sum_p x_p * weight of pixel p in bin d of view k

that is, the line integral in pixel lengths averaged over the width of a detector bin;
`base_footprints` has the weights.
"""

import chex
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Num

from klip_jax.operators import base_footprints
from klip_jax.operators.base import Operator
from klip_jax.operators.base_halves import eigen, fold, unfold
from klip_jax.types import Image, Scalar

DENSE_ENTRIES = 2**24  # a matrix of up to 64 MiB is held dense
EXACT_ROWS = 2304  # and A A^T is diagonalised in blocks of up to that many rows
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
            matrix = self._matrix(zip(first, weights, strict=True), views)
            self.matrix = jnp.asarray(matrix.reshape(rows, columns))
        else:
            self.first = jnp.asarray(np.stack(first))
        if self.stored:
            self.weights = jnp.stack([jnp.asarray(np.stack(w)) for w in weights])
        if self.exact:
            even, odd = fold(matrix, self.mirrored)
            self.even_power, self.even_basis = eigen(even)
            self.odd_power, self.odd_basis = eigen(odd)

    def rows(self, every: int = 1) -> Float[np.ndarray, "rows pixels"]:
        """Return the rows of A of every so many views, float64, however A is held."""
        angles = np.deg2rad(self.angles[::every])
        directions = list(zip(np.cos(angles), np.sin(angles), strict=True))
        first = [self._first(*direction) for direction in directions]
        weights = map(self._weights, first, *zip(*directions, strict=True))
        matrix = self._matrix(zip(first, weights, strict=True), len(angles))
        return matrix.reshape(-1, matrix.shape[-1])

    def _matrix(self, shadows, views):
        height, width, _ = self.in_shape
        return base_footprints.dense(shadows, views, self.out_shape[1], height * width)

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

        even, odd = fold(r, self.mirrored)
        even = solve(even, self.even_power, self.even_basis)
        odd = solve(odd, self.odd_power, self.odd_basis)
        return unfold(even, odd)


def _matvec(matrix: Array, x: Array) -> Array:
    # As a column: XLA then does not transpose the matrix in every call under vmap.
    return jnp.matmul(matrix, x[:, None], precision="highest")[:, 0]
