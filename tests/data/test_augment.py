import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.data.augment import Augment, augment, augmented
from klip_jax.data.base import image_source

pytestmark = pytest.mark.usefixtures("compile_fast")


@pytest.fixture(scope="module")
def blob():
    grid = np.arange(32)
    y, x = grid[:, None] - 15.5, grid - 11.5
    return jnp.float32(0.2 + 0.6 * np.exp(-(x**2 + 2 * y**2) / 40))[..., None]


def test_nothing_is_the_source_itself(blob):
    source = image_source(np.asarray(blob)[None])
    assert augmented(source, Augment()) is source
    key = jax.random.key(0)
    np.testing.assert_allclose(augment(key, blob, Augment()), blob, atol=1e-6)


def centre(image, side=32):
    weight = np.asarray(image)[..., 0] - 0.2
    grid = np.arange(side)
    along = weight.sum(0) @ grid, weight.sum(1) @ grid
    return np.array(along) / weight.sum()


def test_shifts_move_and_keep_the_sharpness(blob):
    settings = Augment(shift=3.0)
    keys = jax.random.split(jax.random.key(0), 200)
    shifted = jax.jit(jax.vmap(lambda key, x: augment(key, x, settings), (0, None)))
    found = shifted(keys, blob)
    moved = np.array([centre(image) for image in found]) - centre(blob)
    assert np.abs(moved).max() < 3.1 and np.abs(moved.mean(0)).max() < 0.4
    np.testing.assert_allclose(moved.std(0), 3 / np.sqrt(3), rtol=0.15)
    # White noise keeps most of its power: a bilinear filter would leave 4/9 of it.
    noise = 0.5 + 0.05 * jax.random.normal(jax.random.key(1), (32, 32, 1))
    found = shifted(keys, noise)
    power = np.var(np.asarray(found)[:, 6:-6, 6:-6]) / np.var(np.asarray(noise))
    assert power > 0.7


def test_stretches_mirrors_and_greys(blob):
    keys = jax.random.split(jax.random.key(0), 200)

    def changed(**settings):
        settings = Augment(**settings)
        change = jax.jit(jax.vmap(lambda k: augment(k, blob, settings)))
        return np.asarray(change(keys))

    area = np.sqrt((changed(stretch=0.2) - 0.2).sum((1, 2, 3)) / (blob - 0.2).sum())
    assert 0.8 < area.min() < 0.9 and 1.1 < area.max() < 1.2
    mirrored = np.abs(changed(mirror=0.5) - blob[:, ::-1]).max((1, 2, 3)) < 1e-5
    assert 70 < mirrored.sum() < 130
    spread = np.ptp(changed(contrast=0.1), (1, 2, 3)) / np.ptp(blob)
    assert 0.9 <= spread.min() < 0.92 and 1.08 < spread.max() <= 1.1001
    level = (changed(brightness=0.05) - blob).mean((1, 2, 3))
    assert -0.0501 <= level.min() < -0.04 and 0.04 < level.max() <= 0.0501


def test_a_source_draws_other_images(blob):
    source = augmented(image_source(np.asarray(blob)[None]), Augment(shift=2.0))
    draw = jax.jit(source.draw)
    first, again, other = (draw(source.arrays, jax.random.key(n)) for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


@pytest.mark.parametrize(
    "setting", [dict(shift=-1.0), dict(stretch=0.6), dict(mirror=1.1)]
)
def test_settings_out_of_range(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"train.augment: {name}=.*must be in"):
        Augment(**setting).check()
