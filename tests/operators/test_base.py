"""Stacking and composition of operators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators.base import stack
from klip_jax.operators.identity import Identity
from klip_jax.operators.mask import Half
from klip_jax.operators.mri import Cartesian
from klip_jax.testing import check_operator

pytestmark = pytest.mark.usefixtures("compile_fast")

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
