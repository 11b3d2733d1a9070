import numpy as np
import pytest

from klip_jax import lesions

SIDE = 12
EVERYWHERE = np.ones((SIDE, SIDE), bool)


def picture(*spots):
    """A map that is 0 but at (row, column, value)."""
    image = np.zeros((SIDE, SIDE))
    for row, column, value in spots:
        image[row, column] = value
    return image


def stacked(*lists):
    return [np.stack(images) for images in lists]


def test_corners_connect():
    mask = np.array([[1, 0, 0, 0], [0, 1, 0, 1]], bool)
    expected = [[1, 0, 0, 0], [0, 1, 0, 2]]
    np.testing.assert_array_equal(lesions.components(mask), expected)


def test_marks_are_local_maxima_and_the_first_of_equals():
    image = picture((2, 2, 5.0), (3, 3, 4.0), (9, 9, 3.0), (9, 10, 3.0), (2, 9, 9.0))
    region = EVERYWHERE.copy()
    region[:, 11] = False
    region[2, 9] = False
    found = lesions.marks(image, region, 2)
    where = list(zip(found.rows, found.columns, found.scores, strict=True))
    # 4 is beside 5; of both 3 the first counts; 9 is outside and hides nothing.
    assert where[:2] == [(2, 2, 5.0), (9, 9, 3.0)]
    assert all(score == 0 for _, _, score in where[2:])
    assert len(lesions.marks(np.zeros((7, 7)), np.ones((7, 7), bool), 7).rows) == 1
    with pytest.raises(ValueError, match="not finite"):
        lesions.marks(image * np.nan, region)


def test_froc_by_hand():
    # Two images, lesions at (2, 2) and (9, 9) of the first; marks by score:
    # 8 false (image 2), 7 hit, 6 false (1), 5 false (2), 4 hit the other lesion.
    one = picture((2, 2, 7.0), (9, 9, 4.0), (2, 9, 6.0))
    two = picture((5, 5, 8.0), (10, 1, 5.0))
    mask = picture((2, 2, 1), (9, 8, 1)).astype(bool)
    images = stacked([one, two], [mask, mask & False], [EVERYWHERE] * 2)
    rates = {0.0: 0.0, 0.5: 0.5, 1.0: 0.5, 1.5: 1.0}
    for rate, expected in rates.items():
        assert lesions.sensitivity(*images, rate=rate, radius=1) == expected, rate
    none = stacked([one, two], [mask & False] * 2, [EVERYWHERE] * 2)
    assert np.isnan(lesions.sensitivity(*none))


def test_a_constant_map_finds_nothing_at_few_false_marks():
    mask = picture((2, 2, 1)).astype(bool)
    flat = stacked([np.ones((SIDE, SIDE))] * 3, [mask] * 3, [EVERYWHERE] * 3)
    assert lesions.sensitivity(*flat, rate=0.0, radius=1) == 0


def test_seg_f1_at_the_threshold_of_healthy_maps():
    healthy = np.stack([np.zeros((2, 2)), [[0, 0], [0, 4.0]]])
    region = np.ones((2, 2, 2), bool)
    bar = lesions.own_threshold(healthy, region)
    assert bar == pytest.approx(0.5 + 3 * np.sqrt(16 / 8 - 0.25))
    region[1, 1, 1] = False  # what is outside has no say
    assert lesions.own_threshold(healthy, region) == 0
    maps = np.array([[[5.0, 5.0], [5.0, 0.0]]])
    mask = np.array([[[1, 0], [1, 1]]], bool)
    # TP 2, FP 1, FN 1.
    everywhere = np.ones((1, 2, 2), bool)
    assert lesions.seg_f1(maps, mask, everywhere, 4.5) == pytest.approx(4 / 6)
    assert np.isnan(lesions.seg_f1(maps, mask & False, everywhere, 9.0))


def test_aupimo_by_hand():
    # 100 healthy pixels 1..100: at a rate F all above the (F 100 + 1)-th is flagged.
    healthy = np.arange(1.0, 101).reshape(1, 10, 10)
    maps = np.zeros((3, 10, 10))
    maps[0, 0, :2] = [99.5, 97.5]
    maps[1, 0, 0] = 200
    masks = np.zeros(maps.shape, bool)
    masks[0, 0, :2] = masks[1, 0, 0] = True
    found = lesions.aupimo(maps, masks, healthy, low=0.01, high=0.08)
    # 99.5 is flagged from F = .01 on (bar 99), 97.5 from .03 on (bar 97).
    expected = 0.5 + 0.5 * np.log(0.08 / 0.03) / np.log(0.08 / 0.01)
    np.testing.assert_allclose(found[:2], [expected, 1])
    assert np.isnan(found[2])


def test_aupimo_equals_a_fine_sum():
    rng = np.random.default_rng(0)
    healthy = rng.integers(0, 40, (3, 8, 8)).astype(float)
    regions = rng.random((3, 8, 8)) < 0.7
    maps, masks = rng.integers(10, 50, (2, 8, 8)), rng.random((2, 8, 8)) < 0.3
    low, high = 0.02, 0.6
    found = lesions.aupimo(
        maps, masks, healthy, low=low, high=high, healthy_regions=regions
    )
    rates = np.exp(np.linspace(np.log(low), np.log(high), 20001))
    bars = np.arange(-1, 60)
    # For each rate the lowest bar that keeps to it.
    alarms = [
        np.mean([np.mean(h[r] > b) for h, r in zip(healthy, regions, strict=True)])
        for b in bars
    ]
    first = np.array([np.argmax(np.array(alarms) <= rate + 1e-12) for rate in rates])
    expected = [
        np.mean([np.mean(m[k] > bars[i]) for i in first])
        for m, k in zip(maps, masks, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_aupimo_refuses_rates_that_pixels_cannot_tell():
    with pytest.raises(ValueError, match="give more of them"):
        lesions.aupimo(np.ones((1, 4, 4)), np.ones((1, 4, 4), bool), np.ones((1, 4, 4)))


def test_sizes_contrasts_and_strata():
    mask = np.zeros((2, 8, 8), bool)
    mask[0, 3:5, 3:5] = True
    image = np.full((2, 8, 8), 0.2)
    image[0, 3:5, 3:5] = 0.5
    image[0, 0, 0] = 1  # far away
    np.testing.assert_array_equal(lesions.sizes(mask), [4, 0])
    found = lesions.contrasts(image, mask, 2)
    assert found[0] == pytest.approx(0.3) and np.isnan(found[1])
    which = lesions.strata(np.array([0.1, 0.2, 0.9, np.nan]), np.array([0.2, 0.5]))
    np.testing.assert_array_equal(which, [0, 1, 2, -1])
