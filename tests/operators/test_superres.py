"""Super-resolution against Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from klip_jax.operators.superres import Superresolution
from klip_jax.testing import check_operator

PILLOW = {"box": Image.Resampling.BOX, "bicubic": Image.Resampling.BICUBIC}


@pytest.mark.parametrize("kernel", PILLOW)
@pytest.mark.parametrize("shape", [(32, 24), (28, 42), (3, 9)])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_shrinking_equals_pillow_up_to_the_borders(kernel, shape, factor):
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    op = Superresolution((*shape, 1), factor=factor, kernel=kernel)
    height, width, _ = op.out_shape
    expected = np.asarray(Image.fromarray(x).resize((width, height), PILLOW[kernel]))
    found = np.asarray(op(jnp.asarray(x[..., None])))[..., 0]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_box_is_the_mean_of_blocks_and_its_naive_inverse_repeats_them():
    op = Superresolution((8, 12, 2), factor=4)
    x = np.random.default_rng(0).random(op.in_shape).astype(np.float32)
    y = jnp.asarray(x.reshape(2, 4, 3, 4, 2).mean((1, 3)))
    np.testing.assert_allclose(op(jnp.asarray(x)), y, rtol=1e-5)
    np.testing.assert_allclose(op.naive_inverse(y), y.repeat(4, 0).repeat(4, 1), 1e-5)


@pytest.mark.parametrize("kernel", PILLOW)
def test_naive_inverse_gives_the_measurement(kernel):
    op = Superresolution((17, 19, 1), factor=3, kernel=kernel)
    y = jax.random.normal(jax.random.key(0), op.out_shape)
    np.testing.assert_allclose(op(op.naive_inverse(y)), y, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3])
def test_bicubic_keeps_the_contract(factor):
    op = Superresolution((9, 12, 2), factor=factor, kernel="bicubic")
    check_operator(op, jax.random.key(0))


@pytest.mark.parametrize("noise_std", [0.001, 1.0])
def test_bicubic_solve_gram_equals_a_dense_solve(noise_std):
    op = Superresolution((9, 14, 1), factor=2, kernel="bicubic")
    basis = jnp.eye(9 * 14).reshape(-1, *op.in_shape)
    a = np.asarray(jax.jit(jax.vmap(op))(basis), np.float64).reshape(9 * 14, -1).T
    r = jax.random.normal(jax.random.key(1), op.out_shape)
    gram = 0.7 * a @ a.T + noise_std**2 * np.eye(len(a))
    expected = np.linalg.solve(gram, np.ravel(r))
    found = np.ravel(op.solve_gram(r, 0.7, noise_std**2))
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 0}, "factor=0: must be an integer >= 1"),
        ({"factor": 2.5}, "factor=2.5"),
        ({"kernel": "lanczos"}, "kernel='lanczos'.*bicubic.*box"),
    ],
)
def test_wrong_settings_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        Superresolution((8, 8, 1), **settings)
