"""Gaussian, uniform and motion blur."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from klip_jax.operators.blur import GaussianBlur, MotionBlur, UniformBlur
from klip_jax.testing import check_operator

MODE = {"circular": "wrap", "zero": "constant"}  # the same in scipy.ndimage
IMAGE = np.random.default_rng(1).random((17, 22, 1)).astype(np.float32)


def kernel_of(op):
    """Return the kernel [H, W] as the image of a point in the middle."""
    height, width, _ = op.in_shape
    point = jnp.zeros(op.in_shape).at[height // 2, width // 2].set(1.0)
    return np.asarray(op(point))[..., 0]


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


@pytest.mark.parametrize("boundary", MODE)
def test_gaussian_blur_equals_scipy(boundary):
    op = GaussianBlur(IMAGE.shape, std=1.5, truncate=4.0, boundary=boundary)
    expected = scipy.ndimage.gaussian_filter(
        IMAGE[..., 0], 1.5, mode=MODE[boundary], truncate=4.0
    )
    np.testing.assert_allclose(op(jnp.asarray(IMAGE))[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("boundary", MODE)
@pytest.mark.parametrize("size", [1, 5])
def test_uniform_blur_equals_scipy(boundary, size):
    op = UniformBlur(IMAGE.shape, size=size, boundary=boundary)
    expected = scipy.ndimage.uniform_filter(IMAGE[..., 0], size, mode=MODE[boundary])
    np.testing.assert_allclose(op(jnp.asarray(IMAGE))[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("boundary", MODE)
def test_motion_blur_equals_scipy_with_its_kernel(boundary):
    kernel = kernel_of(MotionBlur((21, 21, 1), size=9))[6:15, 6:15]
    op = MotionBlur(IMAGE.shape, size=9, boundary=boundary)
    expected = scipy.ndimage.convolve(IMAGE[..., 0], kernel, mode=MODE[boundary])
    np.testing.assert_allclose(op(jnp.asarray(IMAGE))[..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("size", [1, 9])
def test_motion_kernel_fills_its_square_and_sums_to_one(size):
    for seed in range(4):
        kernel = kernel_of(MotionBlur((21, 21, 1), size=size, seed=seed))
        rows, columns = np.nonzero(kernel > 1e-5)
        assert kernel.min() > -1e-6
        assert abs(kernel.sum() - 1) < 1e-5
        assert max(np.ptp(rows), np.ptp(columns)) == size - 1
        assert {rows.min() + rows.max(), columns.min() + columns.max()} == {20}


def test_motion_kernel_without_a_bend_is_a_line():
    kernel = kernel_of(MotionBlur((21, 21, 1), size=9, bend=0.0, seed=2))
    spread = np.cov(np.nonzero(kernel > 1e-5), aweights=kernel[kernel > 1e-5])
    across, along = np.linalg.eigvalsh(spread)
    assert across < 0.3 < 4 < along  # rasterising widens a line by up to half a pixel


def test_seed_freezes_the_motion():
    a, b, c = (MotionBlur((9, 9, 1), seed=s).transfer for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert jnp.abs(a - c).max() > 0.01


@pytest.mark.parametrize("cls", [GaussianBlur, MotionBlur])
def test_zero_boundary_keeps_the_contract(cls):
    op = cls((9, 12, 2), boundary="zero")
    check_operator(op, jax.random.key(0))
    assert op(jnp.ones(op.in_shape))[0, 0, 0] < 0.9


def test_zero_boundary_takes_a_kernel_larger_than_the_image():
    op = GaussianBlur((5, 3, 1), std=4.0, boundary="zero")
    x = np.random.default_rng(0).random(op.in_shape)
    expected = scipy.ndimage.gaussian_filter(x[..., 0], 4.0, mode="constant")
    np.testing.assert_allclose(op(jnp.asarray(x, jnp.float32))[..., 0], expected, 1e-5)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (GaussianBlur, {"std": 0.0}, "must be positive"),
        (GaussianBlur, {"truncate": -1.0}, "must be positive"),
        (GaussianBlur, {"boundary": "mirror"}, "boundary='mirror'.*circular.*zero"),
        (UniformBlur, {"size": 4}, "size=4: must be odd.*use 5"),
        (UniformBlur, {"size": -3}, "size=-3.*use 1"),
        (UniformBlur, {"boundary": ""}, "boundary=''"),
        (MotionBlur, {"size": 0}, "size=0"),
        (MotionBlur, {"bend": -1.0}, "bend=-1.0"),
    ],
)
def test_wrong_settings_raise(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls((8, 8, 1), **settings)
