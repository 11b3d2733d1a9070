"""Cartesian MRI."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators.mri import Cartesian


@pytest.mark.parametrize("shape", [(16, 12, 1), (17, 19, 2)])
def test_mri_equals_the_kept_columns_of_the_fourier_transform(shape):
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    image = x[..., 0] if shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]
    op = Cartesian(shape, acceleration=2)
    expected = np.fft.fft2(image, norm="ortho")[:, op.lines]
    y = np.asarray(op(x))
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], expected, atol=1e-5)


@pytest.mark.parametrize("width", [16, 17, 64, 65])
@pytest.mark.parametrize("acceleration", [1, 2, 4])
def test_lines_are_hermitian_pairs_within_the_budget(width, acceleration):
    op = Cartesian((8, width, 1), acceleration=acceleration, seed=3)
    lines = set(np.asarray(op.lines).tolist())
    assert 0 in lines
    assert lines == {-k % width for k in lines}
    budget = round(width / acceleration)
    assert budget - 1 <= len(lines) <= budget


def test_the_centre_is_always_kept():
    for seed in range(3):
        lines = np.asarray(Cartesian((4, 100, 1), centre=0.1, seed=seed).lines)
        assert {0, 1, 2, 3, 4, 5, 95, 96, 97, 98, 99} <= set(lines.tolist())


@pytest.mark.parametrize("channels", [1, 2])
def test_without_acceleration_the_zero_filled_image_is_the_image(channels):
    op = Cartesian((12, 17, channels), acceleration=1)
    x = jax.random.normal(jax.random.key(0), op.in_shape)
    np.testing.assert_allclose(op.naive_inverse(op(x)), x, atol=1e-5)


def test_real_images_give_hermitian_data_so_the_gram_matrix_is_a_projection():
    op = Cartesian((8, 9, 1), acceleration=2)
    y = jax.random.normal(jax.random.key(0), op.out_shape)
    projected = op(op.adjoint(y))
    assert jnp.linalg.norm(projected) < 0.9 * jnp.linalg.norm(y)
    np.testing.assert_allclose(op(op.adjoint(projected)), projected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acceleration": 0.5}, "acceleration=0.5"),
        ({"centre": 1.5}, "centre=1.5"),
        ({"centre": 0.9}, "lower one"),
    ],
)
def test_wrong_settings_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        Cartesian((8, 16, 1), **settings)
    with pytest.raises(ValueError, match="channels"):
        Cartesian((8, 16, 3))
