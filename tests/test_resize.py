"""Resizing is that of torch, torchvision and OpenCV: their own matrices, saved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import resize


@pytest.fixture
def saved(shared_data):
    return np.load(shared_data / "golden" / "dg_resize.npz")


def test_nearest_takes_the_pixels_that_torch_takes(saved):
    for low, high, new in ((224, 256, 224), (28, 32, 28)):
        expected = saved[f"nearest_{low}to{high}_into_{new}"]
        for size, row in zip(range(low, high + 1), expected, strict=True):
            np.testing.assert_array_equal(resize.nearest_index(size, new), row)
    for size, new in ((256, 64), (96, 24), (32, 8), (224, 64), (28, 7)):
        expected = saved[f"nearest_{size}_into_{new}"]
        np.testing.assert_array_equal(resize.nearest_index(size, new), expected)


@pytest.mark.parametrize("antialias", [False, True])
def test_bilinear_is_torchvision_s(saved, antialias):
    for size, new in ((224, 256), (256, 224), (28, 32), (32, 28)):
        name = "bilinear_antialias" if antialias else "bilinear"
        found = resize.bilinear_matrix(size, new, antialias=antialias)
        np.testing.assert_allclose(found, saved[f"{name}_{size}_to_{new}"], atol=3e-7)


def test_bilinear_without_antialiasing_is_opencv_s(saved):
    for size, new in ((8, 256), (3, 96)):
        cam = jnp.asarray(saved[f"cam_{size}"])[..., None]
        found = resize.bilinear(cam, (new, new))[..., 0]
        np.testing.assert_allclose(found, saved[f"cam_{size}_cv2_{new}"], atol=3e-7)


def test_both_keep_constants_and_their_own_size():
    x = jax.random.uniform(jax.random.key(0), (6, 9, 2))
    for of in (resize.nearest, resize.bilinear):
        np.testing.assert_array_equal(of(x, (6, 9)), x)
        flat = of(jnp.full((6, 9, 2), 0.7), (4, 13))
        assert flat.shape == (4, 13, 2)
        np.testing.assert_allclose(flat, 0.7, rtol=1e-6)


def test_a_linear_ramp_stays_one_inside():
    ramp = jnp.arange(8.0)[:, None, None] * jnp.ones((8, 1, 1))
    found = resize.bilinear(ramp, (16, 1))[1:-1, 0, 0]
    np.testing.assert_allclose(found, (jnp.arange(1, 15) + 0.5) / 2 - 0.5, atol=1e-6)


def test_nothing_cannot_be_resized():
    with pytest.raises(ValueError, match="cannot go from 8 pixels to 0: at least 1"):
        resize.nearest_index(8, 0)
