"""The base of every forward operator: y = A x, its adjoint, composition and stacking.

A new operator is one file: a class with `__init__` and `__call__`. What it gets here:

- it is a pytree: its arrays (and nested operators) are leaves, the rest is static, so
  it enters `jit` as an argument;
- `adjoint` is `jax.linear_transpose`, conjugated where y is complex; override it only
  where the automatic one is slow, and let the dot test judge;
- `solve_gram` is conjugate gradients; override it where A A^T is diagonal or has a
  known eigendecomposition. It is all that exact conditional Gaussians need:
  x + v A^T (v A A^T + s^2 I)^-1 (y - A x) is the mean of x0 ~ N(x, v I) given y.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.sparse.linalg import cg


class Operator:
    """A linear map from [in_shape] to [out_shape]; subclasses are pytrees."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    out_dtype = jnp.float32

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(cls, cls._flatten, cls._unflatten)

    def __call__(self, x: Array) -> Array:
        """Apply A to `x` [in_shape]; returns [out_shape]."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def adjoint(self, y: Array) -> Array:
        """Apply the conjugate transpose of A to `y` [out_shape]; returns [in_shape]."""
        x = jax.ShapeDtypeStruct(self.in_shape, jnp.finfo(y.dtype).dtype)
        (x,) = jax.linear_transpose(self.__call__, x)(jnp.conj(y))
        return x

    def solve_gram(
        self,
        r: Array,
        variance: Array,
        noise_var: Array,
        *,
        tol: float = 1e-5,
        maxiter: int = 200,
    ) -> Array:
        """Solve (variance * A A^T + noise_var * I) u = r by conjugate gradients.

        Args:
          r: right-hand side [out_shape].
          variance: scalar > 0, prior variance of each pixel, squared image units.
          noise_var: scalar > 0, noise variance, squared units of y.
          tol: relative residual at which to stop.
          maxiter: most iterations; 200 reach `tol` where variance |A|^2 / noise_var is
            at most about 1000, and leave errors of 1e-2 at 10,000.

        Returns:
          u [out_shape].
        """

        def gram(u):
            return variance * self(self.adjoint(u)) + noise_var * u

        return cg(gram, r, tol=tol, maxiter=maxiter)[0]

    def naive_inverse(self, y: Array) -> Array:
        """Return a quick picture of `y` [in_shape]: here the adjoint, scaled to fit.

        The scale a minimises || y - a A A^T y ||, so that the picture has image units.
        """
        x = self.adjoint(y)
        ax = self(x)
        power = jnp.sum(jnp.abs(ax) ** 2)
        return x * jnp.real(jnp.vdot(ax, y)) / jnp.maximum(power, 1e-30)

    def __matmul__(self, other: "Operator") -> "Operator":
        """Compose: (A @ B)(x) = A(B(x))."""
        return Composition(self, other)

    def _flatten(self):
        fields = dict(vars(self))
        arrays = (jax.Array, np.ndarray, Operator)
        names = fields.pop("_leaves", None) or tuple(
            sorted(k for k, value in fields.items() if isinstance(value, arrays))
        )
        dynamic = [(jax.tree_util.GetAttrKey(k), fields.pop(k)) for k in names]
        return dynamic, (names, tuple(sorted(fields.items())))

    @classmethod
    def _unflatten(cls, aux, children):
        # Children may be anything jax puts there (tracers, None, shapes): no checks,
        # and their names are kept, because their types no longer tell.
        names, static = aux
        op = object.__new__(cls)
        leaves = dict(zip(names, children, strict=True))
        vars(op).update(dict(static), **leaves, _leaves=names)
        return op


class Composition(Operator):
    """The operator A B: first B, then A.

    Args:
      outer: A, applied last.
      inner: B, applied first.

    Raises:
      ValueError: if the shapes do not fit.
    """

    def __init__(self, outer: Operator, inner: Operator):
        if outer.in_shape != inner.out_shape:
            raise ValueError(
                f"cannot compose: {type(outer).__name__} takes {outer.in_shape} but "
                f"{type(inner).__name__} gives {inner.out_shape}"
            )
        self.outer, self.inner = outer, inner
        self.in_shape, self.out_shape = inner.in_shape, outer.out_shape
        self.out_dtype = outer.out_dtype

    def __call__(self, x: Array) -> Array:
        return self.outer(self.inner(x))

    def adjoint(self, y: Array) -> Array:
        return self.inner.adjoint(self.outer.adjoint(y))


def stack(*operators: Operator) -> Operator:
    """Measure one image with several operators: y = (A x, B x, ...), flattened.

    All share one noise_std, so their measurements must have one unit.

    Args:
      operators: at least two, with the same `in_shape` and the same `out_dtype`.

    Returns:
      An operator with `out_shape` (rows,), rows = the sum of the operators' sizes.

    Raises:
      ValueError: if there are fewer than two, or they do not fit each other.
    """
    if len(operators) < 2:
        raise ValueError(f"cannot stack {len(operators)} operators: give two or more")
    return functools.reduce(_Stack, operators)


class _Stack(Operator):
    """The rows of `first` above those of `second`."""

    def __init__(self, first: Operator, second: Operator):
        for what in ("in_shape", "out_dtype"):
            one, other = getattr(first, what), getattr(second, what)
            if one != other:
                raise ValueError(
                    f"cannot stack: {type(first).__name__} has {what} {one} but "
                    f"{type(second).__name__} has {other}; they must be equal"
                )
        self.first, self.second = first, second
        self.in_shape, self.out_dtype = first.in_shape, first.out_dtype
        self.out_shape = (math.prod(first.out_shape) + math.prod(second.out_shape),)

    def __call__(self, x: Array) -> Array:
        return jnp.concatenate([self.first(x).ravel(), self.second(x).ravel()])

    def adjoint(self, y: Array) -> Array:
        upper, lower = jnp.split(y, [math.prod(self.first.out_shape)])
        upper = self.first.adjoint(upper.reshape(self.first.out_shape))
        return upper + self.second.adjoint(lower.reshape(self.second.out_shape))
