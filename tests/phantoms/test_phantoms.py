"""Phantoms: what is random is random by the stated law, and every mask is exact."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from klip_jax.phantoms import anatomy, anomalies, atlas, lesion, metal, radon

COUNT = 48
# Optimising an anatomy takes seconds, drawing it microseconds: not worth it here.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def keys(seed=0, count=COUNT):
    return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def draw_batch():
    return jit(jax.vmap(anatomy.phantom))


@pytest.fixture(scope="module")
def batch(draw_batch):
    return jax.tree.map(np.asarray, draw_batch(keys()))


@pytest.fixture(scope="module")
def one(batch):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batch)


@pytest.fixture(scope="module")
def plain():
    """Liver everywhere, eligible in two patches of 200 and 400 pixels."""
    eligible = np.zeros((64, 64), bool)
    eligible[20:40, 10:20] = eligible[20:40, 35:55] = True
    return anatomy.Phantom(
        hu=jnp.full((64, 64), 60.0),
        body=jnp.ones((64, 64), bool),
        eligible=jnp.asarray(eligible),
        labels=jnp.full((64, 64), atlas.LIVER),
        kidneys=jnp.zeros((2, 64, 64)),
        behind=jnp.full((64, 64), -100.0),
    )


@pytest.fixture(scope="module")
def lesions(plain):
    """3000 lesions in the plain anatomy: change of HU and masks."""
    many = jax.jit(jax.vmap(lesion.lesion, in_axes=(0, None)))
    hu, mask = many(keys(1, 3000), plain)
    return np.asarray(hu - plain.hu), np.asarray(mask)


def test_anatomy_depends_on_its_key_alone(draw_batch, batch):
    shuffled = draw_batch(keys()[::-1])
    for left, right in zip(batch, shuffled, strict=True):
        np.testing.assert_array_equal(left, np.asarray(right)[::-1])


def test_vmap_equals_loop(batch):
    single = jit(anatomy.phantom)
    for i in range(3):
        drawn = single(keys()[i])
        np.testing.assert_allclose(drawn.hu, batch.hu[i], atol=0.05)
        np.testing.assert_array_equal(drawn.labels, batch.labels[i])


@pytest.mark.slow
def test_jit_equals_no_jit(batch):
    drawn = anatomy.phantom(keys()[0])
    np.testing.assert_allclose(drawn.hu, batch.hu[0], atol=0.05)
    np.testing.assert_array_equal(drawn.eligible, batch.eligible[0])


@pytest.mark.slow
def test_lengths_scale_with_size(batch):
    large = jit(jax.vmap(lambda key: anatomy.phantom(key, 128)))(keys(count=8))
    for tissue in ((atlas.LIVER,), (atlas.MUSCLE,), (atlas.FAT, atlas.SKIN)):
        share = np.isin(batch.labels[:8], tissue).mean()
        np.testing.assert_allclose(
            np.isin(large.labels, tissue).mean(), share, rtol=0.08
        )


@pytest.mark.parametrize("size", [32, 65, 96])
def test_shapes(size):
    drawn = jax.eval_shape(lambda key: anomalies.draw(key, "id", size), keys()[0])
    assert drawn.image.shape == (size, size, 1)
    assert drawn.image.dtype == jnp.float32
    assert drawn.mask.shape == drawn.body.shape == drawn.eligible.shape == (size, size)


def test_too_small_raises():
    with pytest.raises(ValueError, match="size is 16 but must be >= 32"):
        anatomy.phantom(keys()[0], 16)


def test_window():
    hu = jnp.array([[-1000.0, -160.0, 40.0, 240.0, 900.0]])
    np.testing.assert_allclose(
        anatomy.window(hu)[..., 0], [[0, 0, 0.5, 1, 1]], atol=1e-6
    )


def test_attenuation_is_plausible(batch):
    images = anatomy.window(jnp.asarray(batch.hu))
    assert images.min() >= 0.0 and images.max() <= 1.0 and np.isfinite(batch.hu).all()
    np.testing.assert_array_equal(batch.hu[~batch.body & (batch.labels == 0)] < 0, True)
    for tissue in (*atlas.ORGANS, atlas.GAS, atlas.FAT, atlas.MARROW):
        t = atlas.TISSUES[tissue]
        # Strands lift the fat; the median is not touched by the edges of muscle.
        medians = [
            np.median(hu[core])
            for hu, labels in zip(batch.hu, batch.labels, strict=True)
            if (core := ndimage.binary_erosion(labels == tissue)).sum() >= 12
        ]
        slack = 25.0 if tissue == atlas.FAT else 1.2 * t.sd  # 12 correlated pixels
        if medians:
            assert min(medians) > t.mean - t.jitter - slack, tissue
            assert max(medians) < t.mean + t.jitter + t.gain + slack, tissue


@pytest.mark.parametrize("tissue", [atlas.LIVER, atlas.SPLEEN, atlas.KIDNEY])
def test_texture_of_organs(batch, tissue):
    squares, count = 0.0, 0
    for hu, labels in zip(batch.hu, batch.labels, strict=True):
        core = ndimage.binary_erosion(labels == tissue)
        if core.sum() >= 12:
            squares += ((hu[core] - hu[core].mean()) ** 2).sum()
            count += core.sum() - 1
    assert count > 100
    assert 10.0 < np.sqrt(squares / count) < 15.0


def test_textures_have_unit_variance_and_correlations():
    fields = np.stack(jit(jax.vmap(lambda k: anatomy._textures(k, 64)))(keys()))
    np.testing.assert_allclose(fields.std((1, 2, 3)), 1.0, atol=0.03)
    neighbour = (fields * np.roll(fields, 2, -1)).mean((1, 2, 3))
    assert neighbour[0] < 0.2 < neighbour[1] < neighbour[2]


def test_every_key_is_another_body(batch):
    columns, rows = batch.body.any(1), batch.body.any(2)
    width, height = columns.sum(1), rows.sum(1)
    centre = np.array([ndimage.center_of_mass(body) for body in batch.body])
    assert width.std() > 2.5 and np.ptp(width) > 8  # uniform in 45-57: 3.5
    assert height.std() > 1.5
    assert (centre.std(0) > 0.9).all()  # uniform in +-2.5: 1.4
    assert len(np.unique(centre.round(3), axis=0)) == COUNT
    assert not columns[:, [0, -1]].any() and not rows[:, [0, -1]].any()
    liver = (batch.labels == atlas.LIVER).sum((1, 2))
    assert liver.std() > 0.2 * liver.mean()
    side = [ndimage.center_of_mass(k)[1] for k in batch.labels == atlas.LIVER]
    mirrored = (np.array(side) > centre[:, 1]).mean()
    assert abs(mirrored - 0.5) < 4 * 0.5 / np.sqrt(COUNT)


def test_eligible_is_soft_tissue_away_from_bone_gas_and_outside(batch):
    bad = np.isin(batch.labels, (atlas.AIR, atlas.GAS, atlas.BONE, atlas.MARROW))
    near = ndimage.binary_dilation(bad, np.ones((1, 3, 3)))
    np.testing.assert_array_equal(
        batch.eligible, np.isin(batch.labels, atlas.ORGANS) & ~near
    )
    assert batch.eligible.sum((1, 2)).min() > 150


def test_lesion_mask_is_exact(lesions):
    change, mask = lesions
    contrast = np.abs(change).max((1, 2), keepdims=True)
    assert (contrast >= 24.9).all() and (contrast <= 60.1).all()
    clear_cut = np.abs(np.abs(change) / contrast - 0.5) > 1e-3
    np.testing.assert_array_equal(
        mask[clear_cut], (np.abs(change) > contrast / 2)[clear_cut]
    )
    edge = ndimage.binary_dilation(mask, np.ones((1, 3, 3)), iterations=2)
    assert (change[~edge] == 0.0).all()
    assert (np.sign(change) * np.sign(change.sum((1, 2), keepdims=True)) >= 0).all()
    positive = (change.sum((1, 2)) > 0).mean()
    assert abs(positive - 0.5) < 4 * 0.5 / np.sqrt(len(change))


def test_lesion_area_is_that_of_its_axes(lesions):
    area = lesions[1].sum((1, 2))
    assert area.min() >= 8 and area.max() <= 1.1 * np.pi * 25  # pi 4 to pi 25
    error = 4 * area.std() / np.sqrt(len(area))
    np.testing.assert_allclose(area.mean(), np.pi * 3.5**2, atol=error)


def test_lesions_are_uniform_over_eligible_pixels(lesions, plain):
    weight = np.abs(lesions[0])
    weight = weight / weight.sum((1, 2), keepdims=True)
    row, column = np.mgrid[:64, :64]
    row, column = (weight * row).sum((1, 2)), (weight * column).sum((1, 2))
    count = len(row)
    right = column > 27.5
    share = 2 / 3
    assert abs(right.mean() - share) < 4 * np.sqrt(share * (1 - share) / count)
    # Uniform on 20 rows and on 20 columns, sub-pixel: counts in boxes of 5 x 5 pixels.
    boxes, _, _ = np.histogram2d(
        row[right], column[right], bins=4, range=((19.5, 39.5), (34.5, 54.5))
    )
    expected = right.sum() / 16
    chi2 = ((boxes - expected) ** 2 / expected).sum()
    assert chi2 < 15 + 4 * np.sqrt(2 * 15)
    assert abs((row % 1).mean() - 0.5) < 4 * np.sqrt(1 / 12 / count)


def test_lesion_in_anatomy_alters_tissue_only(batch):
    hu, mask = jit(jax.vmap(lesion.lesion))(keys(2), anatomy.Phantom(*batch))
    hu, mask = np.asarray(hu), np.asarray(mask)
    tissue = np.asarray(jax.vmap(anatomy.clear)(batch.labels))
    assert (mask & batch.eligible).any((1, 2)).all()
    assert not (mask & ~(tissue & batch.body)).any()
    np.testing.assert_array_equal(hu[~tissue], batch.hu[~tissue])


def test_projection_of_a_disc():
    grid = np.arange(64) - 31.5
    disc = np.clip(20.5 - np.hypot(grid[:, None], grid), 0, 1)
    sinogram = jit(radon.line_integrals)(jnp.float32(disc))
    t = np.asarray(radon._bins(64))
    chord = 2 * np.sqrt(np.maximum(20.0**2 - t**2, 0))
    off_edge = np.abs(np.abs(t) - 20) > 1.5
    np.testing.assert_allclose((sinogram - chord)[:, off_edge], 0, atol=0.5)
    np.testing.assert_allclose(sinogram.sum(1), disc.sum(), rtol=0.01)
    back = jit(radon.back_projection, static_argnums=1)(sinogram, 64)
    inside = np.hypot(grid[:, None], grid) < 17
    np.testing.assert_allclose(back[inside], 1.0, atol=0.05)


def test_metal_mask_is_exact(batch):
    some = jax.tree.map(lambda leaf: leaf[:8], anatomy.Phantom(*batch))
    hu, mask = jit(jax.vmap(metal.metal))(keys(3, 8), some)
    change = np.asarray(anatomy.window(hu) - anatomy.window(jnp.asarray(some.hu)))[
        ..., 0
    ]
    np.testing.assert_array_equal(mask, np.abs(change) > metal.METAL_HU / 400)
    assert (np.asarray(hu).max((1, 2)) > 2000).all()
    assert mask.any((1, 2)).all()
    far = np.asarray(mask) & (ndimage.distance_transform_edt(hu < 2000) > 5)
    assert far.sum() > 50  # streaks, not only the disc


def test_metal_without_starvation_leaves_no_streaks(one, monkeypatch):
    monkeypatch.setattr(metal, "PHOTONS", 1e30)
    monkeypatch.setattr(metal, "SCATTER", 0.0)
    _, mask = jit(metal.metal)(keys(4, 1)[0], one)
    rows, columns = np.nonzero(mask)
    assert 1 <= len(rows) <= 25 and np.ptp(rows) <= 6 and np.ptp(columns) <= 6


def test_missing_kidney_is_fat_where_the_kidney_was(batch):
    missing = jit(jax.vmap(anomalies.missing_kidney))
    hu, mask = jax.tree.map(np.asarray, missing(keys(5), anatomy.Phantom(*batch)))
    sides = (mask[:, None] == (batch.kidneys > 0.5)).all((2, 3))
    np.testing.assert_array_equal(sides.sum(1), 1)
    assert (sides.sum(0) > COUNT / 4).all()
    assert mask.sum((1, 2)).min() >= 5
    t = atlas.TISSUES[atlas.FAT]
    np.testing.assert_allclose(hu[mask].mean(), t.mean, atol=t.jitter)
    assert abs(hu[mask] - t.mean).max() < t.jitter + 5 * t.sd
    kidney = batch.kidneys[np.arange(COUNT), sides.argmax(1)]
    np.testing.assert_array_equal(hu[kidney == 0], batch.hu[kidney == 0])
    assert (batch.labels[mask] == atlas.KIDNEY).mean() > 0.5


@pytest.mark.parametrize("kind", anomalies.KINDS)
def test_draw_alters_the_anatomy_of_its_key(kind, one, monkeypatch):
    key, one = keys()[0], jax.tree.map(jnp.asarray, one)

    def phantom(given, size):
        assert given is key and size == 64
        return one

    monkeypatch.setattr(anomalies, "phantom", phantom)
    drawn = jit(lambda: anomalies.draw(key, kind))()
    np.testing.assert_array_equal(drawn.eligible, one.eligible)
    np.testing.assert_array_equal(drawn.body, one.body)
    change = drawn.image - anatomy.window(one.hu)
    altered = bool((abs(change) > 1e-5).any())
    assert bool(drawn.mask.any()) == altered == (kind != "id")


def test_unknown_kind_raises():
    with pytest.raises(ValueError, match=r"'lesoin'.*'id', 'lesion', 'metal'"):
        anomalies.draw(keys()[0], "lesoin")
