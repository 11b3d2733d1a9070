"""The identity: y = x. Denoising is the inverse problem that it poses."""

import chex
from jax import Array

from klip_jax.operators.base import Operator


class Identity(Operator):
    """The identity y = x; with noise, denoising.

    Args:
      in_shape: (H, W, C), also the shape of y; y has the unit of x.
    """

    def __init__(self, in_shape: tuple[int, ...]):
        self.in_shape = self.out_shape = tuple(in_shape)

    def __call__(self, x: Array) -> Array:
        chex.assert_shape(x, self.in_shape)
        return x

    def solve_gram(self, r: Array, variance: Array, noise_var: Array) -> Array:
        """Solve exactly: A A^T = I, so u = r / (variance + noise_var), [H, W, C]."""
        return r / (variance + noise_var)
