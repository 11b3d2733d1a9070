"""The base of every forward operator: y = A x, its adjoint, and the algebra of them.

A new operator is one file: a class with `__init__`, which sets `in_shape` and
`out_shape`, and `__call__`, which applies A. Not a dataclass, because users give views
and angles while A holds arrays made from them. What it gets here:

- it is a pytree: a field that holds an array or an operator, itself or in a list, tuple
  or dict, is a child, the rest is static, so it enters `jit` as an argument;
- `adjoint` is `jax.linear_transpose`, conjugated where y is complex; override it only
  where the automatic one is slow, and let the dot test judge;
- `solve_gram` is conjugate gradients; override it where A A^T has a known
  eigendecomposition. It is all that exact conditional Gaussians need (`scan`);
- `A @ B`, `A + B`, `c * A`, `A.T` and `stack(A, B)`.

Reference: docs/theory.md, section 8.
"""

import functools
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.sparse.linalg import cg
from jaxtyping import Float, Num

from klip_jax.types import Scalar


class Operator:
    """A linear map from [in_shape] to [out_shape]; subclasses are pytrees.

    >>> import jax, jax.numpy as jnp
    >>> from klip_jax.operators.base import Operator
    >>> from klip_jax.testing import check_operator
    >>> class Rows(Operator):
    ...     def __init__(self, in_shape, weights=(1.0,)):
    ...         self.weights = jnp.asarray(weights)
    ...         self.in_shape, self.out_shape = in_shape, (in_shape[0],)
    ...     def __call__(self, x):
    ...         return (self.weights * x).sum((1, 2))
    >>> check_operator(Rows((8, 8, 1)), jax.random.key(0))
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    out_dtype: Any = jnp.float32
    tolerance = 1e-5
    """Of the conjugate gradients: the relative residual at which they stop."""
    most_iterations = 200
    """Of theirs; 200 do where variance |A|^2 / noise_var is at most about 1000."""
    __array_ufunc__ = None  # numpy's numbers leave c * A to us

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_with_keys(cls, cls._flatten, cls._unflatten)

    if not TYPE_CHECKING:  # else any attribute would pass the type checker

        def __getattr__(self, name):  # called for what is missing only
            cls = type(self)
            why = f"{cls.__name__} has no {name}"
            if name in ("in_shape", "out_shape"):
                why += ": set self.in_shape and self.out_shape in __init__"
            if cls.__base__ is not Operator:
                why += f"; is super().__init__ of {cls.__base__.__name__} called first?"
            raise AttributeError(why, name=name, obj=self)

    def __call__(self, x: Num[Array, "..."]) -> Num[Array, "..."]:
        """Apply A to `x` [in_shape]; returns [out_shape]."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    def adjoint(self, y: Num[Array, "..."]) -> Num[Array, "..."]:
        """Apply the conjugate transpose of A to `y` [out_shape]; returns [in_shape]."""
        x = jax.ShapeDtypeStruct(self.in_shape, jnp.finfo(y.dtype).dtype)
        (x,) = jax.linear_transpose(self.__call__, x)(jnp.conj(y))
        return x

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar
    ) -> Num[Array, "..."]:
        """Solve (variance * A A^T + noise_var * I) u = r by conjugate gradients.

        Args:
          r: right-hand side [out_shape].
          variance: > 0, prior variance of each pixel, squared image units.
          noise_var: > 0, noise variance, squared units of y.

        Returns:
          u [out_shape].
        """

        def gram(u):
            return variance * self(self.adjoint(u)) + noise_var * u

        u, _ = cg(gram, r, tol=self.tolerance, maxiter=self.most_iterations)
        return u + 0 * r  # the loop ends at once on NaN, which must not pass for 0

    def naive_inverse(self, y: Num[Array, "..."]) -> Num[Array, "..."]:
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

    def __add__(self, other: "Operator") -> "Operator":
        """Add: (A + B)(x) = A(x) + B(x)."""
        return _Sum(self, other)

    def __rmul__(self, scale: Any) -> "Operator":
        """Scale by a real number: (c * A)(x) = c A(x)."""
        return _Scaled(scale, self)

    @property
    def T(self) -> "Operator":
        """The conjugate transpose as an operator: A.T(y) = A.adjoint(y)."""
        return _Transposed(self)

    def _flatten(self):
        fields = dict(vars(self))
        names = fields.pop("_leaves", None) or tuple(
            sorted(name for name, value in fields.items() if _holds_arrays(value))
        )
        dynamic = [(jax.tree_util.GetAttrKey(k), fields.pop(k)) for k in names]
        return dynamic, (names, _Static(fields))

    @classmethod
    def _unflatten(cls, aux, children):
        # Children may be anything jax puts there (tracers, None, shapes): no checks,
        # and their names are kept, because their types no longer tell.
        names, static = aux
        op = object.__new__(cls)
        leaves = dict(zip(names, children, strict=True))
        vars(op).update(static, **leaves, _leaves=names)
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

    def __call__(self, x: Num[Array, "..."]) -> Num[Array, "..."]:
        return self.outer(self.inner(x))

    def adjoint(self, y: Num[Array, "..."]) -> Num[Array, "..."]:
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
        _check_equal("stack", first, second, ("in_shape", "out_dtype"))
        self.first, self.second = first, second
        self.in_shape, self.out_dtype = first.in_shape, first.out_dtype
        self.out_shape = (math.prod(first.out_shape) + math.prod(second.out_shape),)

    def __call__(self, x: Num[Array, "..."]) -> Num[Array, "..."]:
        return jnp.concatenate([self.first(x).ravel(), self.second(x).ravel()])

    def adjoint(self, y: Num[Array, "..."]) -> Num[Array, "..."]:
        upper, lower = jnp.split(y, [math.prod(self.first.out_shape)])
        upper = self.first.adjoint(upper.reshape(self.first.out_shape))
        return upper + self.second.adjoint(lower.reshape(self.second.out_shape))


class _Sum(Operator):
    """The operator A + B."""

    def __init__(self, first: Operator, second: Operator):
        _check_equal("add", first, second, ("in_shape", "out_shape", "out_dtype"))
        self.first, self.second = first, second
        self.in_shape, self.out_shape = first.in_shape, first.out_shape
        self.out_dtype = first.out_dtype

    def __call__(self, x: Num[Array, "..."]) -> Num[Array, "..."]:
        return self.first(x) + self.second(x)

    def adjoint(self, y: Num[Array, "..."]) -> Num[Array, "..."]:
        return self.first.adjoint(y) + self.second.adjoint(y)


class _Scaled(Operator):
    """The operator c A of a real number c; what A solves exactly, it solves too."""

    def __init__(self, scale: Any, operator: Operator):
        if jnp.ndim(scale) or jnp.iscomplexobj(scale):
            raise ValueError(
                f"cannot scale {type(operator).__name__} by {scale}: must be one real "
                "number; counts.Diagonal has one for each entry"
            )
        self.scale, self.operator = jnp.asarray(scale, float), operator
        self.in_shape, self.out_shape = operator.in_shape, operator.out_shape
        self.out_dtype = operator.out_dtype

    def __call__(self, x: Num[Array, "..."]) -> Num[Array, "..."]:
        return _scale(self.scale, self.operator(x))

    def adjoint(self, y: Num[Array, "..."]) -> Num[Array, "..."]:
        return _scale(self.scale, self.operator.adjoint(y))

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar
    ) -> Num[Array, "..."]:
        """Solve with A at scale^2 times the variance; see `Operator.solve_gram`."""
        scale = self.scale.astype(jnp.finfo(r.dtype).dtype)
        return self.operator.solve_gram(r, scale**2 * variance, noise_var)

    def naive_inverse(self, y: Num[Array, "..."]) -> Num[Array, "..."]:
        return self.operator.naive_inverse(_scale(1 / self.scale, y))


class _Transposed(Operator):
    """The operator A^H."""

    def __init__(self, operator: Operator):
        self.operator = operator
        self.in_shape, self.out_shape = operator.out_shape, operator.in_shape

    def __call__(self, x: Num[Array, "..."]) -> Num[Array, "..."]:
        return self.operator.adjoint(x)

    def adjoint(self, y: Num[Array, "..."]) -> Num[Array, "..."]:
        return self.operator(y)

    @property
    def T(self) -> Operator:
        """A itself."""
        return self.operator


class _Static(dict):
    """What decides the program: equal where its fields are, hashed by their names."""

    def __hash__(self):
        return hash(tuple(sorted(self)))


def _holds_arrays(value: Any) -> bool:
    leaves = jax.tree.leaves(value, is_leaf=lambda node: isinstance(node, Operator))
    return any(isinstance(leaf, Array | np.ndarray | Operator) for leaf in leaves)


def _scale(scale: Float[Array, ""], values: Num[Array, "..."]) -> Num[Array, "..."]:
    return scale.astype(jnp.finfo(values.dtype).dtype) * values


def _check_equal(verb: str, first: Operator, second: Operator, names) -> None:
    for name in names:
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            raise ValueError(
                f"cannot {verb}: {type(first).__name__} has {name} {one} but "
                f"{type(second).__name__} has {other}; they must be equal"
            )
