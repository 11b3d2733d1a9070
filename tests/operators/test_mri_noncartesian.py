"""MRI along radial lines, spirals and listed frequencies."""

import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators.mri import Cartesian, MultiCoil
from klip_jax.operators.mri_noncartesian import NonCartesian, _path


def direct(image, k):
    """Sum the definition, float64."""
    row, column = (np.arange(n) - n // 2 for n in image.shape[-2:])
    rows = np.exp(-2j * np.pi * k[..., :1] * row)
    columns = np.exp(-2j * np.pi * k[..., 1:] * column)
    return np.einsum("...hw,sh,sw->...s", image, rows, columns) / np.sqrt(
        image.shape[-2] * image.shape[-1]
    )


def relative(y, expected):
    y = np.asarray(y[..., 0]) + 1j * np.asarray(y[..., 1])
    return np.linalg.norm(y - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(16, 16, 1), (11, 14, 2)])
def test_it_is_the_direct_sum(shape):
    rng = np.random.default_rng(0)
    k = rng.uniform(-0.5, 0.5, (40, 2))
    k[0], k[1] = 0, (-0.5, 0.5)
    x = rng.standard_normal(shape).astype(np.float32)
    image = x[..., 0] if shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]
    assert relative(NonCartesian(shape, k)(jnp.asarray(x)), direct(image, k)) < 1e-5
    maps = np.asarray(MultiCoil(shape, coils=2).sensitivities)
    op = NonCartesian(shape, k, sensitivities=maps)
    assert relative(op(jnp.asarray(x)), direct(maps * image, k)) < 1e-5
    left = jnp.vdot(op(jnp.asarray(x)), y := jnp.ones(op.out_shape))
    right = jnp.vdot(jnp.asarray(x), op.adjoint(y))
    np.testing.assert_allclose(left, right, atol=1e-4)


def test_on_a_grid_it_is_cartesian():
    shape = (8, 9, 1)
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    rows, columns = (np.arange(n) - n // 2 for n in shape[:2])
    k = np.stack(np.meshgrid(rows / 8, columns / 9, indexing="ij"), -1)
    full = Cartesian(shape, lines=np.arange(9), centred=True)(jnp.asarray(x))
    y = NonCartesian(shape, k)(jnp.asarray(x)).reshape(full.shape)
    np.testing.assert_allclose(y, full, atol=1e-5)


def test_paths():
    radial = _path("radial", 8, 4, None, None)
    assert radial.shape == (4, 8, 2)
    np.testing.assert_allclose(radial[0, :, 1], (np.arange(8) - 4) / 8)  # to the right
    np.testing.assert_allclose(
        radial[2, :, 0], (4 - np.arange(8)) / 8, atol=1e-12
    )  # up
    spiral = _path("spiral", 8, 2, 20, 3.0)
    radius = np.hypot(*np.moveaxis(spiral, -1, 0))
    np.testing.assert_allclose(radius, np.tile(np.arange(20) / 40, (2, 1)), atol=1e-12)
    np.testing.assert_allclose(spiral[0], -spiral[1], atol=1e-12)


@pytest.mark.parametrize("trajectory", ["radial", "spiral"])
def test_the_quick_picture_looks_like_the_image(trajectory):
    x = np.zeros((24, 24, 1), np.float32)
    x[6:18, 5:16] = 1
    op = NonCartesian(x.shape, trajectory, arms=24)
    picture = op.naive_inverse(op(jnp.asarray(x)))
    assert np.linalg.norm(picture - x) < 0.35 * np.linalg.norm(x)


def test_files_and_complex_samples(tmp_path):
    k = _path("radial", 8, 3, None, None)
    np.save(tmp_path / "k.npy", k)
    op = NonCartesian((8, 8, 1), str(tmp_path / "k.npy"))
    samples = np.arange(48).reshape(2, 3, 8) * (1 + 2j)
    y = op.measured(samples)
    assert y.shape == (2, *op.out_shape)
    np.testing.assert_array_equal(y[1, :, 1], 2 * samples[1].real.ravel())


@pytest.mark.parametrize(
    ("trajectory", "settings", "message"),
    [
        ("radial", {"arms": 0}, "arms=0"),
        ("spiral", {"turns": -1.0}, "turns=-1"),
        ("radial", {"sensitivities": np.ones((1, 8, 9))}, "sensitivities have shape"),
        (np.full((3, 2), 4.0), {}, "cycles per pixel"),
        (np.zeros((3, 3)), {}, "cycles per pixel"),
        (np.full((3, 2), np.nan), {}, "cycles per pixel"),
    ],
)
def test_wrong_settings_raise(trajectory, settings, message):
    with pytest.raises(ValueError, match=message):
        NonCartesian((8, 8, 1), trajectory, **settings)
    with pytest.raises(ValueError, match="channels"):
        NonCartesian((8, 8, 3))
