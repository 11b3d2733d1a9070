import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.data.augment import Augment, augment, augmented
from klip_jax.data.base import image_source, labelled_source


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
    many = shifted(keys, blob)
    moved = np.array([centre(image) for image in many]) - centre(blob)
    assert np.abs(moved).max() < 3.1 and np.abs(moved.mean(0)).max() < 0.4
    np.testing.assert_allclose(moved.std(0), 3 / np.sqrt(3), rtol=0.15)
    # White noise keeps most of its power: a bilinear filter would leave 4/9 of it.
    noise = 0.5 + 0.05 * jax.random.normal(jax.random.key(1), (32, 32, 1))
    many = shifted(keys, noise)
    power = np.var(np.asarray(many)[:, 6:-6, 6:-6]) / np.var(np.asarray(noise))
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


def test_a_crop_is_a_whole_shift_mirrored_at_the_edge(blob):
    keys = jax.random.split(jax.random.key(0), 60)
    settings = Augment(crop=2)
    crops = jax.jit(jax.vmap(lambda k: augment(k, blob, settings)))(keys)
    padded = np.pad(np.asarray(blob), ((2, 2), (2, 2), (0, 0)), "reflect")
    seen = set()
    for crop in np.asarray(crops):
        (start,) = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if np.allclose(padded[i : i + 32, j : j + 32], crop, atol=1e-6)
        ]
        seen.add(start)
    assert len(seen) > 15


def test_a_square_is_cut_out(blob):
    keys = jax.random.split(jax.random.key(0), 200)
    settings = Augment(cutout=6)
    cut = jax.jit(jax.vmap(lambda k: augment(k, 0 * blob, settings)))(keys)
    assert set(np.unique(cut)) == {0.0, 0.5}
    areas = np.count_nonzero(np.asarray(cut), (1, 2, 3))
    # Whole inside the image, a quarter of it or more at its edge.
    assert areas.max() == 36 and 9 <= areas.min() < 36
    covered = np.asarray(cut).mean(0) / 0.5
    assert covered.max() < 0.15 and covered[0].sum() > 0 and covered[-1].sum() > 0


def test_labels_stay(blob):
    source = labelled_source(np.stack([blob, 1 - blob]), [3, 5])
    draw = jax.jit(augmented(source, Augment(mirror=1.0)).draw)
    for n in range(6):
        image, label = draw(source.arrays, jax.random.key(n))
        expected = blob if label == 3 else 1 - blob
        np.testing.assert_allclose(image, expected[:, ::-1], atol=1e-6)


@pytest.mark.parametrize(
    "setting", [dict(shift=-1.0), dict(stretch=0.6), dict(mirror=1.1), dict(crop=-1)]
)
def test_settings_out_of_range(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=f"train.augment: {name}=.*must be in"):
        Augment(**setting).check()
