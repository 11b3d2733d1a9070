"""Compressed sensing by a subsampled DCT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from klip_jax.operators.dct import SubsampledDCT


def test_measurements_equal_the_kept_coefficients_of_scipy():
    op = SubsampledDCT((9, 14, 2), keep=0.4)
    x = np.random.default_rng(0).random(op.in_shape).astype(np.float32)
    expected = scipy.fft.dctn(x, axes=(0, 1), norm="ortho").reshape(-1, 2)
    np.testing.assert_allclose(jax.jit(op)(x), expected[op.coefficients], atol=1e-5)


def test_adjoint_equals_the_automatic_transpose():
    op = SubsampledDCT((9, 12, 2))
    y = jax.random.normal(jax.random.key(0), op.out_shape)
    x = jnp.zeros(op.in_shape)
    transpose = jax.jit(lambda y: jax.linear_transpose(op, x)(y)[0])
    found = jax.jit(op.adjoint)(y)
    np.testing.assert_allclose(found, transpose(y), atol=1e-6)
    np.testing.assert_allclose(jax.jit(op)(found), y, atol=1e-5)


def test_with_all_coefficients_the_adjoint_is_the_inverse():
    op = SubsampledDCT((7, 8, 1), keep=1.0)
    x = jax.random.normal(jax.random.key(0), op.in_shape)
    found = jax.jit(lambda x: op.naive_inverse(op(x)))(x)
    np.testing.assert_allclose(found, x, atol=1e-5)


def test_it_keeps_its_share_the_lowest_frequencies_and_its_seed():
    shape = (20, 30, 1)
    u, v = np.divmod(np.arange(600), 30)
    lowest = np.argsort(np.hypot(u / 20, v / 30), kind="stable")[:30]
    a, b, c = (
        set(
            np.asarray(
                SubsampledDCT(shape, keep=0.2, low=0.05, seed=s).coefficients
            ).tolist()
        )
        for s in (1, 1, 2)
    )
    assert len(a) == len(c) == 120
    assert set(lowest.tolist()) <= a & c
    assert a == b != c


def test_the_mean_is_always_measured():
    for seed in range(3):
        op = SubsampledDCT((6, 5, 1), keep=0.01, low=0.0, seed=seed)
        np.testing.assert_array_equal(op.coefficients, [0])


@pytest.mark.parametrize(
    "settings", [{"keep": 0.0}, {"keep": 1.5}, {"low": -0.1}, {"keep": 0.1, "low": 0.2}]
)
def test_wrong_settings_raise(settings):
    with pytest.raises(ValueError, match=r"keep=.*low=.*low in \[0, keep\]"):
        SubsampledDCT((8, 8, 1), **settings)
