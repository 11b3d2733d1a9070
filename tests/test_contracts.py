"""Contracts that every extension keeps, found by walking the package.

A public operator must be constructible as `Class(in_shape)`, with sensible defaults,
for any (H, W, 1); for other channels it may raise ValueError instead. That is all it
takes to be tested here.
"""

import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import klip_jax.operators
from klip_jax.operators.base import Composition, Operator
from klip_jax.operators.identity import Identity
from klip_jax.testing import check_operator

SHAPES = [(16, 16, 1), (17, 19, 1), (12, 9, 2), (9, 12, 3)]


def public_classes(package, base):
    """List the public subclasses of `base` that modules of `package` define."""
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    return [
        value
        for module in modules
        for name, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, base) and value.__module__ == module.__name__
        if not name.startswith("_") and value not in (base, Composition)
    ]


OPERATORS = public_classes(klip_jax.operators, Operator)


@pytest.fixture(params=OPERATORS, ids=lambda cls: cls.__name__)
def operator_class(request):
    return request.param


def build(cls, shape):
    try:
        return cls(shape)
    except ValueError:
        if shape[-1] == 1:
            raise
        pytest.skip(f"{cls.__name__} does not take {shape[-1]} channels")


def dense(op):
    """Write a real operator as a float64 matrix [rows, columns]."""
    basis = jnp.eye(np.prod(op.in_shape)).reshape(-1, *op.in_shape)
    return np.asarray(jax.vmap(op)(basis), np.float64).reshape(len(basis), -1).T


def test_the_walk_finds_operators():
    assert {"ParallelBeam", "Identity"} <= {cls.__name__ for cls in OPERATORS}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_operator_keeps_its_contract(operator_class, shape):
    check_operator(build(operator_class, shape), jax.random.key(0))


@pytest.mark.parametrize("shape", SHAPES[1:3], ids=str)
@pytest.mark.parametrize("noise_std", [0.1, 3.0])
def test_solve_gram_equals_a_dense_solve(operator_class, shape, noise_std):
    op = build(operator_class, shape)
    a = dense(op)
    r = np.asarray(jax.random.normal(jax.random.key(1), op.out_shape))
    gram = 0.7 * a @ a.T + noise_std**2 * np.eye(len(a))
    expected = np.linalg.solve(gram, r.ravel().astype(np.float64))
    u = np.asarray(op.solve_gram(r, 0.7, noise_std**2)).ravel()
    assert np.linalg.norm(u - expected) <= 1e-4 * np.linalg.norm(expected)


def test_operator_composes(operator_class):
    inner = Identity((17, 19, 1))
    op = operator_class(inner.out_shape) @ inner
    check_operator(op, jax.random.key(2))
    other = Identity((5, 4, 1))
    with pytest.raises(ValueError, match="cannot compose"):
        op @ other


def test_operator_follows_the_dtype(operator_class):
    with jax.enable_x64(True):
        op = operator_class((17, 19, 1))
        kx, ky = jax.random.split(jax.random.key(3))
        x = jax.random.normal(kx, op.in_shape, jnp.float64)
        y = jax.random.normal(ky, op.out_shape, jnp.float64)
        r = op.solve_gram(y, 0.5, 0.2)
        assert op(x).dtype == op.adjoint(y).dtype == r.dtype == jnp.float64
        assert op(x.astype(jnp.float32)).dtype == jnp.float32
        gap = jnp.vdot(op(x), y) - jnp.vdot(x, op.adjoint(y))
        assert abs(gap) <= 1e-13 * jnp.linalg.norm(op(x)) * jnp.linalg.norm(y)


def test_operator_enters_programs_compiled_ahead_of_time(operator_class):
    op = operator_class((17, 19, 1))
    x = jax.random.normal(jax.random.key(5), op.in_shape)
    compiled = jax.jit(lambda op, x: op(x)).lower(op, x).compile()
    np.testing.assert_allclose(compiled(op, x), op(x), rtol=1e-4, atol=1e-4)
    shapes = jax.tree.map(jnp.shape, op)
    is_shape = lambda leaf: isinstance(leaf, tuple)  # noqa: E731
    assert jax.tree.structure(shapes, is_leaf=is_shape) == jax.tree.structure(op)


def test_operator_runs_in_shard_map(operator_class):
    op = operator_class((17, 19, 1))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    replicated, sharded = (
        jax.sharding.PartitionSpec(),
        jax.sharding.PartitionSpec("data"),
    )

    def gradient(op, x):
        return jax.vmap(lambda x: op.adjoint(op(x)))(x)

    # check_vma=False: jax.linear_transpose needs it.
    mapped = jax.shard_map(
        gradient,
        mesh=mesh,
        in_specs=(replicated, sharded),
        out_specs=sharded,
        check_vma=False,
    )
    x = jax.random.normal(jax.random.key(4), (2, *op.in_shape))
    np.testing.assert_allclose(
        jax.jit(mapped)(op, x), gradient(op, x), rtol=1e-4, atol=1e-4
    )


class WrongAdjoint(Identity):
    def adjoint(self, y):
        return 1.1 * y


class Affine(Identity):
    def __call__(self, x):
        return x + 1.0


class Square(Identity):
    def __call__(self, x):
        return x**2


class WrongSolve(Identity):
    def solve_gram(self, r, variance, noise_var):
        return r / variance


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WrongAdjoint, "WrongAdjoint: dot test"),
        (Affine, "Affine: linearity"),
        (Square, "Square: linearity"),
        (WrongSolve, "WrongSolve: .* solve_gram"),
    ],
)
def test_check_operator_names_what_is_broken(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_operator(broken((4, 5, 1)), jax.random.key(0))
