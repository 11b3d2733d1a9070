"""The algebra of operators, and what a user's own one may hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators.base import Operator, stack
from klip_jax.operators.blur import GaussianBlur
from klip_jax.operators.ct import ParallelBeam
from klip_jax.operators.identity import Identity
from klip_jax.operators.mask import Half
from klip_jax.operators.mri import Cartesian
from klip_jax.testing import check_operator

SHAPE = (8, 9, 1)


def test_a_stack_lists_the_measurements_in_order():
    parts = Half(SHAPE), Cartesian(SHAPE), Identity(SHAPE)
    op = stack(*parts)
    x = jax.random.normal(jax.random.key(0), SHAPE)
    expected = np.concatenate([np.ravel(part(x)) for part in parts])
    assert op.out_shape == expected.shape
    np.testing.assert_allclose(op(x), expected, atol=1e-6)


def test_a_stack_keeps_the_contract():
    op = stack(Half(SHAPE), Identity(SHAPE)) @ Identity(SHAPE)
    check_operator(op, jax.random.key(0))


def test_measuring_twice_halves_the_noise_variance():
    once, twice = Identity(SHAPE), stack(Identity(SHAPE), Identity(SHAPE))
    x = jax.random.normal(jax.random.key(0), SHAPE)
    mean = [
        op.adjoint(op.solve_gram(op(x), 1.0, noise_var))
        for op, noise_var in ((once, 0.2), (twice, 0.4))
    ]
    np.testing.assert_allclose(mean[0], mean[1], atol=1e-5)


class Complex(Identity):
    out_dtype = jnp.complex64


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "cannot stack 0 operators"),
        ((Identity(SHAPE),), "cannot stack 1 operators"),
        (
            (Identity(SHAPE), Half((8, 8, 1))),
            r"Identity has in_shape \(8, 9, 1\).*Half",
        ),
        ((Identity(SHAPE), Complex(SHAPE)), "out_dtype"),
    ],
)
def test_operators_that_do_not_fit_raise(parts, message):
    with pytest.raises(ValueError, match=message):
        stack(*parts)


X = jax.random.normal(jax.random.key(0), SHAPE)
BLUR = GaussianBlur(SHAPE, std=1.0)
ALGEBRA = {
    "A + B": (BLUR + Identity(SHAPE), lambda x: BLUR(x) + x),
    "c * A": (2.5 * BLUR, lambda x: 2.5 * BLUR(x)),
    "numpy's c * A": (np.float64(2.5) * BLUR, lambda x: 2.5 * BLUR(x)),
    "A.T": (Half(SHAPE).T, Half(SHAPE).adjoint),
    "A.T @ A": (Half(SHAPE).T @ Half(SHAPE), lambda x: x.at[:, 5:].set(0)),
    "all": (0.5 * (BLUR + BLUR.T) @ Identity(SHAPE), BLUR),
}


@pytest.mark.parametrize("name", ALGEBRA)
def test_the_algebra_of_operators(name):
    op, expected = ALGEBRA[name]
    check_operator(op, jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), op.in_shape)
    np.testing.assert_allclose(op(x), expected(x), atol=1e-5)


def test_a_transpose_twice_is_the_operator():
    assert BLUR.T.T is BLUR
    with pytest.raises(ValueError, match=r"cannot add: .* has in_shape \(8, 9, 1\)"):
        BLUR + Identity((9, 8, 1))
    with pytest.raises(ValueError, match=r"cannot scale GaussianBlur by .* one real"):
        2j * BLUR


def test_scaling_keeps_the_exact_solve():
    r = jax.random.normal(jax.random.key(1), SHAPE)
    u = (3.0 * BLUR).solve_gram(r, 0.5, 1e-6)  # where the iteration would stop early
    expected = BLUR.solve_gram(r, 4.5, 1e-6)
    np.testing.assert_allclose(u, expected, rtol=1e-4, atol=1e-2)
    picture = (3.0 * BLUR).naive_inverse((3.0 * BLUR)(X))
    np.testing.assert_allclose(picture, BLUR.naive_inverse(BLUR(X)), atol=1e-5)


def test_nan_does_not_pass_for_zero():
    op = stack(Half(SHAPE), Identity(SHAPE))
    r = jnp.ones(op.out_shape).at[3].set(jnp.nan)
    assert jnp.isnan(op.solve_gram(r, 1.0, 0.1)).any()


class Mine(Operator):
    """What a user would write: arrays in a list, a dict, and settings of any kind."""

    def __init__(self, shape, gains):
        self.in_shape = self.out_shape = shape
        self.gains = [jnp.asarray(gain) for gain in gains]
        self.tables = {"blur": GaussianBlur(shape), "weight": np.float32(0.5)}
        self.name, self.sizes, self.options = "mine", [1, 2], {"order": [0, 1]}

    def __call__(self, x):
        x = self.gains[0] * self.tables["blur"](x) * self.tables["weight"]
        return x + self.gains[1] * len(self.sizes)


def test_an_operator_with_a_list_of_arrays_works_on_every_call():
    traces = []

    @jax.jit
    def apply(op, x):
        traces.append(1)
        return op(x)

    for gain in (1.0, 2.0, 3.0):
        op = Mine(SHAPE, [gain, jnp.zeros(SHAPE)])
        np.testing.assert_allclose(
            apply(op, X), gain / 2 * GaussianBlur(SHAPE)(X), atol=1e-5
        )
    assert len(traces) == 1
    check_operator(op, jax.random.key(0))


class Unset(Operator):
    def __call__(self, x):
        return x


class Forgetful(ParallelBeam):
    def __init__(self, shape):
        self.gain = 2.0


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Unset().in_shape, "Unset has no in_shape: set self.in_shape and"),
        (lambda: Unset() @ BLUR, "Unset has no in_shape: set self.in_shape and"),
        (lambda: Forgetful(SHAPE).out_shape, "is super.* of ParallelBeam called first"),
        (lambda: Forgetful(SHAPE)(X), "has no in_shape: .* super.* of ParallelBeam"),
    ],
)
def test_what_an_operator_lacks_is_said(build, words):
    with pytest.raises(AttributeError, match=words):
        build()
