"""Gaussian blur."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators.blur import GaussianBlur


def test_blur_keeps_a_constant():
    x = jnp.full((17, 19, 2), 0.3)
    np.testing.assert_allclose(GaussianBlur(x.shape)(x), x, rtol=1e-6)


@pytest.mark.parametrize("std", [0.7, 2.0])
def test_blur_equals_direct_circular_convolution(std):
    x = np.random.default_rng(0).random((17, 12, 1))
    radius = int(np.ceil(4 * std))
    offset = np.arange(-radius, radius + 1)
    weight = np.exp(-(offset**2) / (2 * std**2))
    weight /= weight.sum()
    expected = x
    for axis in (0, 1):
        shifted = [
            w * np.roll(expected, d, axis) for d, w in zip(offset, weight, strict=True)
        ]
        expected = sum(shifted)
    found = GaussianBlur(x.shape, std=std)(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_blur_damps_a_wave_by_the_gaussian_transfer_function():
    std, frequency = 2.0, 3 / 64
    wave = jnp.cos(2 * jnp.pi * frequency * jnp.arange(64.0))
    x = jnp.broadcast_to(wave[:, None, None], (64, 64, 1))
    expected = np.exp(-2 * (np.pi * frequency * std) ** 2)
    found = GaussianBlur(x.shape, std=std, truncate=6.0)(x)
    np.testing.assert_allclose(found, expected * x, atol=2e-6)


def test_adjoint_equals_the_automatic_transpose():
    op = GaussianBlur((9, 12, 3))
    y = jax.random.normal(jax.random.key(0), op.out_shape)
    (expected,) = jax.linear_transpose(op, y)(y)
    np.testing.assert_allclose(op.adjoint(y), expected, atol=1e-6)


@pytest.mark.parametrize("settings", [{"std": 0.0}, {"truncate": -1.0}])
def test_wrong_settings_raise(settings):
    with pytest.raises(ValueError, match="must be positive"):
        GaussianBlur((8, 8, 1), **settings)
