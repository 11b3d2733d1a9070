"""The identity: y = x. Denoising is the inverse problem that it poses."""

import chex
from jax import Array
from jaxtyping import Num

from klip_jax.operators.base import Operator
from klip_jax.types import Scalar


class Identity(Operator):
    """The identity y = x; with noise, denoising.

    Args:
      in_shape: (H, W, C), also the shape of y; y has the unit of x.
    """

    def __init__(self, in_shape: tuple[int, ...]):
        self.in_shape = self.out_shape = tuple(in_shape)

    def __call__(self, x: Num[Array, "..."]) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        return x

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar
    ) -> Num[Array, "..."]:
        """Solve exactly: A A^T = I, so u = r / (variance + noise_var), [H, W, C]."""
        return r / (variance + noise_var)
