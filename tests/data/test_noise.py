"""Noise has the laws it says, and is known by its seed, group and number alone."""

import numpy as np
import pytest

from klip_jax.data import noise

KINDS = ("uniform", "gaussian", "rademacher", "blobs", "smooth")
EXPECTED = [165.0, 188.0, 255.0, 0.0, 53.0]


def images(group, count=60, **settings):
    settings = dict(shape=(32, 32, 3), seed=1) | settings
    return noise.load(groups=(group,), per_group=count, **settings).images


def test_names_groups_and_labels():
    made = noise.load(groups=("smooth", "blobs"), per_group=2, shape=(8, 6, 1))
    assert made.ids == ("smooth_00000", "smooth_00001", "blobs_00000", "blobs_00001")
    assert made.groups == ("smooth",) * 2 + ("blobs",) * 2
    assert made.labels == (-1,) * 4 and made.regions == ()
    assert made.patients == made.ids  # else nobody else's would be known with them
    assert made.shape == (8, 6, 1) and made.images.shape == (4, 8, 6, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_known_by_seed_group_and_number(kind):
    few = noise.load(groups=(kind,), per_group=3, seed=4, shape=(9, 8, 1))
    many = noise.load(groups=(*KINDS,), per_group=5, seed=4, shape=(9, 8, 1))
    at = many.groups.index(kind)
    np.testing.assert_array_equal(few.images, many.read([at, at + 1, at + 2]).images)
    other = noise.load(groups=(kind,), per_group=3, seed=5, shape=(9, 8, 1))
    for a, b in ((few.images[0], few.images[1]), (few.images[0], other.images[0])):
        assert (a != b).any()
    x = few.images
    assert x.dtype == np.float32 and x.min() >= 0 and x.max() <= 1
    np.testing.assert_allclose(255 * x, np.round(255 * x), atol=1e-4)


def test_the_draws_do_not_change():
    # What was run once is found again: numbers of numpy 2, Philox.
    first = [noise.draw(kind, (32, 32, 3), 0, 0)[5, 7, 1] * 255 for kind in KINDS]
    assert np.round(first).tolist() == EXPECTED


def test_independent_pixels_have_their_law():
    u, n, r = (images(kind) for kind in ("uniform", "gaussian", "rademacher"))
    count = u.size  # 184,320: a standard error of the mean is 7e-4
    assert abs(u.mean() - 0.5) < 4 * u.std() / np.sqrt(count)
    assert abs(u.var() - 1 / 12) < 1e-3
    assert abs(n.mean() - 0.5) < 4 * n.std() / np.sqrt(count)
    # 2 x 2.3 % lie beyond two standard deviations and are cut.
    assert abs((n == 0).mean() - 0.0228) < 0.002
    assert abs(np.quantile(n, 0.8413) - 0.75) < 0.005
    assert set(np.unique(r)) == {0.0, 1.0} and abs(r.mean() - 0.5) < 0.005
    for x in (u, n, r):
        x = x - x.mean()
        for shifted in (np.roll(x, 1, 1), np.roll(x, 1, 2), np.roll(x, 1, 3)):
            assert abs((x * shifted).mean() / x.var()) < 0.02


def test_blobs_have_edges():
    x = images("blobs")
    inside = x > 0
    assert x[inside].min() >= 0.745 and 0.1 < inside.mean() < 0.4
    # Neighbours go together.
    assert (inside[:, 1:] == inside[:, :-1]).mean() > 0.85


def test_smooth_fields_have_their_spectrum():
    x = images("smooth", 200)
    middle = (0 < x) & (x < 1)
    assert middle.mean() > 0.97 and abs(x.mean() - 0.5) < 0.01
    assert abs(x.std() - 0.2) < 0.01
    np.testing.assert_allclose(x.mean((1, 2)), 0.5, atol=0.03)
    power = (np.abs(np.fft.fft2(x - 0.5, axes=(1, 2))) ** 2).mean((0, 3))
    f = np.hypot(*np.meshgrid(*[np.fft.fftfreq(32)] * 2, indexing="ij"))
    rings = [power[(f >= a) & (f < 1.3 * a)].mean() for a in (0.03, 0.06, 0.12, 0.24)]
    slopes = np.log2(np.array(rings[:-1]) / rings[1:])
    np.testing.assert_allclose(slopes, 2, atol=0.35)
    # One field a colour.
    assert abs(np.corrcoef(x[..., 0].ravel(), x[..., 1].ravel())[0, 1]) < 0.1


def test_settings_that_cannot_work():
    bad = [
        (dict(groups=("id",)), r"no noise is called 'id'; there are \['uniform'"),
        (dict(per_group=0), r"data\.per_group=0: at least one"),
        (dict(shape=(32, 32)), r"data\.shape=\(32, 32\): give \(H, W, C\)"),
        (dict(shape=(32, 1, 3)), r"data\.shape=\(32, 1, 3\)"),
        (dict(seed=-1), r"data\.seed=-1: must be in"),
        (dict(groups=()), r"data\.groups is empty"),
    ]
    for settings, words in bad:
        with pytest.raises(ValueError, match=words):
            noise.load(**settings)
