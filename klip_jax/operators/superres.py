"""Super-resolution: y is the image, shrunk by a factor.

    y = R x C^T,    R [h, H] and C [w, W] the weights along columns and rows

h = ceil(H / factor); a row of R holds k((j + 1/2) / s - (i + 1/2)) over the pixels j,
s = H / h, divided by its sum: that is what Pillow's `resize` does. A A^T = R R^T (x) C
C^T, so the eigenvectors of the two small matrices diagonalise it.
"""

import math

import chex
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Num

from klip_jax.operators.base import Operator
from klip_jax.types import Image, Scalar


class Superresolution(Operator):
    """Shrink each channel by an integer factor, with an anti-aliasing kernel.

    "box" is the mean of factor x factor pixels. "bicubic" is the cubic convolution
    kernel with a = -1/2, stretched by the factor; it is cut off at the borders, where
    its weights are divided by what remains of their sum. If the factor does not divide
    the image, y has ceil(H / factor) rows of equal height, likewise its columns; a
    pixel whose centre lies on the border of two boxes then belongs to the first.

    Args:
      in_shape: (H, W, C).
      factor: how much smaller y is along each axis, an integer >= 1.
      kernel: "box" or "bicubic".

    `__call__` takes [H, W, C] and returns [ceil(H / factor), ceil(W / factor), C] in
    the unit of x.

    Raises:
      ValueError: if `factor` is not a positive integer, or `kernel` is another word.

    Reference: Keys 1981, "Cubic convolution interpolation for digital image
    processing", eq. 15, IEEE Trans. Acoust. Speech Signal Process. 29(6).
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        factor: int = 4,
        kernel: str = "box",
    ):
        if factor < 1 or factor % 1:
            raise ValueError(
                f"factor={factor}: must be an integer >= 1; y is that much smaller"
            )
        if kernel not in _KERNELS:
            raise ValueError(f"kernel={kernel!r}: must be one of {sorted(_KERNELS)}")
        height, width, channels = in_shape
        rows, columns = (
            _weights(n, math.ceil(n / factor), kernel) for n in (height, width)
        )
        self.rows, self.columns = jnp.asarray(rows), jnp.asarray(columns)
        self.row_power, self.row_basis = _eigen(rows)
        self.column_power, self.column_basis = _eigen(columns)
        self.in_shape = (height, width, channels)
        self.out_shape = (len(rows), len(columns), channels)

    def __call__(self, x: Image) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        return _multiply(self.rows, x, self.columns)

    def adjoint(self, y: Num[Array, "..."]) -> Image:
        """Apply A^T y = R^T y C to `y` [h, w, C]; returns [H, W, C]."""
        return _multiply(self.rows.T, y, self.columns.T)

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar
    ) -> Num[Array, "..."]:
        """Solve exactly in the eigenvectors of R R^T and C C^T.

        Args:
          r: right-hand side [h, w, C].
          variance: scalar > 0, prior variance of each pixel, squared image units.
          noise_var: scalar >= 0, noise variance, squared image units.

        Returns:
          u [h, w, C].
        """
        c = _multiply(self.row_basis.T, r, self.column_basis.T)
        power = jnp.outer(self.row_power, self.column_power)[:, :, None]
        c = c / (variance * power.astype(r.dtype) + noise_var)
        return _multiply(self.row_basis, c, self.column_basis)

    def naive_inverse(self, y: Num[Array, "..."]) -> Image:
        """Return the smallest image that gives `y`, A^T (A A^T)^-1 y; [H, W, C].

        For "box" each pixel of y is repeated factor x factor times.
        """
        return self.adjoint(self.solve_gram(y, 1.0, 0.0))


def _box(t: np.ndarray) -> np.ndarray:
    return np.where((t > -0.5) & (t <= 0.5), 1.0, 0.0)


def _bicubic(t: np.ndarray) -> np.ndarray:
    t = abs(t)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t < 1, near, np.where(t < 2, far, 0.0))


_KERNELS = {"box": _box, "bicubic": _bicubic}


def _weights(size: int, shrunk: int, kernel: str) -> np.ndarray:
    """Return the weights [shrunk, size] along one axis; each row sums to 1."""
    old, new = np.arange(size) + 0.5, np.arange(shrunk)[:, None] + 0.5
    weights = _KERNELS[kernel](old * shrunk / size - new)
    return weights / weights.sum(1, keepdims=True)


def _eigen(weights: np.ndarray) -> tuple[Array, Array]:
    """Return eigenvalues [n] and eigenvectors [n, n] of w w^T, w = `weights` [n, N]."""
    power, basis = np.linalg.eigh(weights @ weights.T)
    return jnp.asarray(power), jnp.asarray(basis)


def _multiply(left: Array, x: Array, right: Array) -> Array:
    """Return left x right^T [h, w, C] for each channel of `x` [H, W, C]."""
    left, right = left.astype(x.dtype), right.astype(x.dtype)
    return jnp.einsum("hi,ijc,wj->hwc", left, x, right, precision="highest")
