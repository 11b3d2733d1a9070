import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.phantoms import blobs, lines, simulated
from klip_jax.phantoms.base_simulated import Kind, tissue

GREYS = (0.3, 0.7)


@pytest.fixture
def image():
    """Air, and a square of tissue from 8 to 55 with a bright bone in it."""
    x = np.full((64, 64, 1), 0.1, np.float32)
    x[8:56, 8:56] = 0.5
    x[30:33, 30:33] = 0.95
    return jnp.asarray(x)


def test_tissue_keeps_a_pixel_away_from_all_else(image):
    expected = np.zeros((64, 64), bool)
    expected[9:55, 9:55] = True
    expected[29:34, 29:34] = False
    np.testing.assert_array_equal(tissue(image, GREYS), expected)


def test_a_lesion_changes_its_mask_and_little_else(image):
    kind = Kind(contrast=(0.1, 0.2), radius=(3.0, 5.0))
    eligible = tissue(image, GREYS)
    keys = jax.random.split(jax.random.key(0), 200)
    insert = jax.jit(jax.vmap(lambda key: blobs.lesion(key, image, eligible, kind)))
    images, masks = map(np.asarray, insert(keys))
    change = (images - np.asarray(image))[..., 0]
    area = masks.sum((1, 2))
    radius = np.sqrt(area / np.pi)
    assert radius.min() > 2.0 and radius.max() < 8.0
    assert abs(radius.mean() - 4) < 0.3
    # More than half of the contrast inside the mask, at most half outside it.
    contrast = np.abs(change).max((1, 2))
    assert contrast.min() > 0.09 and contrast.max() < 0.2001
    bone = np.asarray(image)[..., 0] > 0.9
    for c, mask, top in zip(np.abs(change), masks, contrast, strict=True):
        assert np.all(c[mask & ~bone] > 0.49 * top) and np.all(c[~mask] < 0.51 * top)
    signs = np.array(
        [np.sign(c[m & ~bone].sum()) for c, m in zip(change, masks, strict=True)]
    )
    assert 60 < (signs > 0).sum() < 140
    assert len({tuple(np.argwhere(m).mean(0).round()) for m in masks}) > 100
    # Its centre is on eligible tissue, so most of it lies in the square.
    assert masks[:, 4:60, 4:60].sum() > 0.99 * masks.sum()


def test_a_grating_is_texture_without_a_mean(image):
    kind = Kind(radius=(5.0, 5.0), amplitude=(0.1, 0.1))
    eligible = np.zeros((64, 64), bool)
    eligible[18, 44] = True
    eligible = jnp.asarray(eligible)
    keys = jax.random.split(jax.random.key(0), 100)
    put = jax.jit(jax.vmap(lambda key: blobs.grating(key, image, eligible, kind)))
    images, masks = map(np.asarray, put(keys))
    change = (images - np.asarray(image))[..., 0]
    inside = np.array([c[m] for c, m in zip(change, masks, strict=True)], object)
    rms = np.array([np.sqrt(np.mean(c**2)) for c in inside])
    mean = np.array([np.mean(c) for c in inside])
    assert abs(rms.mean() - 0.1) < 0.01
    assert abs(mean.mean()) < 0.01 and mean.std() < 0.03
    # 1.5 times the radius of a lesion.
    assert abs(np.sqrt(masks.sum((1, 2)) / np.pi).mean() - 7.5) < 0.4
    assert np.abs(change[:, 40:, :30]).max() == 0.0


def test_a_stroke_is_long_thin_and_curved(image):
    kind = Kind(contrast=(0.1, 0.1), length=(16.0, 16.0), turn=0.0, width=2.0)
    eligible = np.zeros((64, 64), bool)
    eligible[20, 20] = True
    eligible = jnp.asarray(eligible)
    keys = jax.random.split(jax.random.key(0), 50)

    def put(kind):
        draw = jax.vmap(lambda key: lines.stroke(key, image, eligible, kind))
        return jax.jit(draw)(keys)

    images, masks = map(np.asarray, put(kind))
    # A line of 16 by 2 with round ends; the mask is where half of the contrast is.
    assert abs(masks.sum((1, 2)).mean() - (16 * 2 + np.pi)) < 3
    change = np.abs(images - np.asarray(image))[..., 0]
    assert change.max() == pytest.approx(0.1, abs=1e-6)
    assert np.all(change[masks] >= 0.05 - 1e-6) and np.all(change[~masks] < 0.0501)

    def spread(masks):
        """Smaller and larger standard deviation of each mask's pixels."""
        return np.array(
            [
                np.sqrt(np.linalg.eigvalsh(np.cov(np.argwhere(m).T.astype(float))))
                for m in masks
            ]
        )

    straight = spread(masks)
    assert np.all(straight[:, 1] > 3.5 * straight[:, 0])
    assert all(m[20, 20] for m in masks)
    _, curved = put(kind._replace(turn=3.0))
    assert spread(np.asarray(curved))[:, 0].mean() > 1.5 * straight[:, 0].mean()


def test_bad_views_change_what_those_views_saw(image):
    key, image = jax.random.key(3), 0.3 + 0.4 * image  # so that nothing is cut off
    kind = Kind(streaks=(0.03, 0.03), views=1)
    changed, mask = lines.bad_views(key, image, jnp.ones((64, 64), bool), kind)
    change = np.asarray(changed - image)[..., 0]
    assert np.array_equal(np.abs(change) > lines.STREAK, np.asarray(mask))
    assert np.asarray(mask).any()
    # One view constrains nothing but its own line integrals: the energy of the change
    # lies on one line through the origin of the Fourier plane.
    power = np.abs(np.fft.fftshift(np.fft.fft2(change))) ** 2
    y, x = np.mgrid[-32:32, -32:32]
    axis = np.exp(2j * np.arctan2(y, x))
    assert np.abs(np.sum(power * axis)) > 0.8 * np.sum(power)
    assert np.sqrt(np.mean(change**2)) == pytest.approx(0.03, rel=1e-4)


def test_a_set_of_two_groups(image, tmp_path):
    stack = np.uint8(np.round(255 * np.repeat(np.asarray(image)[None, ..., 0], 9, 0)))
    stack[8] = 25  # no tissue
    split = np.zeros(9, np.uint8)
    np.savez(tmp_path / "x.npz", images=stack, split=split)
    settings = dict(file="x.npz", root=str(tmp_path), greys=GREYS)
    found = simulated.load(**settings, per_group=4)
    assert found.groups == ("id",) * 4 + ("lesion",) * 4
    assert len(set(found.ids)) == 8 and "x_00008" not in found.ids
    assert not found.masks[:4].any() and found.masks[4:].any((1, 2)).all()
    assert found.eligible.all(0)[10, 10] and found.eligible.shape == (8, 64, 64)
    same = simulated.load(**settings, per_group=4)
    np.testing.assert_array_equal(found.images, same.images)
    other = simulated.load(**settings, per_group=4, seed=1)
    assert (other.masks != found.masks).any()
    with pytest.raises(ValueError, match=r"data.groups: no 'metal'; choose of \['bad"):
        simulated.load(**settings, groups=("metal",))
    with pytest.raises(ValueError, match=r"needs 10 images with tissue .* there are 8"):
        simulated.load(**settings, per_group=5)


@pytest.mark.slow
def test_sets_of_other_kinds_sizes_and_places(image, tmp_path):
    stack = np.uint8(np.round(255 * np.repeat(np.asarray(image)[None, ..., 0], 9, 0)))
    np.savez(tmp_path / "x.npz", images=stack, split=np.zeros(9, np.uint8))
    settings = dict(file="x.npz", root=str(tmp_path), greys=GREYS)
    large = simulated.load(**settings, per_group=4)
    small = simulated.load(**settings, per_group=4, radius=(2.0, 2.5))
    assert small.masks.sum() < 0.7 * large.masks.sum()
    kinds = ("grating", "bad_views")
    found = simulated.load(**settings, per_group=2, groups=kinds)
    assert found.groups == ("id",) * 2 + ("grating",) * 2 + ("bad_views",) * 2
    assert found.masks[2:].any((1, 2)).all() and len(set(found.ids)) == 6
    left = simulated.load(**settings, per_group=4, oval=(0.5, 0.25, 0.4, 0.25))
    assert not left.eligible[:, :, 32:].any()


@pytest.mark.slow
def test_only_healthy_images_and_larger_pixels(image, tmp_path):
    stack = np.uint8(np.round(255 * np.repeat(np.asarray(image)[None, ..., 0], 6, 0)))
    area = np.array([0, 7, 0, 9, 0, 0])
    split = np.zeros(6, np.uint8)
    np.savez(tmp_path / "x.npz", images=stack, split=split, area=area)
    settings = dict(file="x.npz", root=str(tmp_path), greys=GREYS, per_group=2)
    found = simulated.load(**settings, healthy="area", shrink=2)
    assert found.images.shape == (4, 32, 32, 1) and found.masks.shape == (4, 32, 32)
    assert not {"x_00001", "x_00003"} & set(found.ids)
    with pytest.raises(ValueError, match="needs 6 images"):
        simulated.load(**settings | {"per_group": 3}, healthy="area", shrink=2)
