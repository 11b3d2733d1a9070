import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from klip_jax import bootstrap, localization, metrics


def test_auroc_of_perfect_reversed_and_tied_scores():
    labels = np.array([0, 0, 1, 1], bool)
    assert metrics.auroc(np.array([1, 2, 3, 4]), labels) == 1
    assert metrics.auroc(np.array([4, 3, 2, 1]), labels) == 0
    assert metrics.auroc(np.array([5, 5, 5, 5]), labels) == 0.5
    assert metrics.auroc(np.array([1, 2, 2, 3]), labels) == 0.875
    assert np.isnan(metrics.auroc(np.array([1, 2, 3, 4]), np.ones(4, bool)))


def test_auroc_equals_sklearn():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 20, 200), rng.random(200) < 0.3
    expected = roc_auc_score(labels, scores)
    assert metrics.auroc(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_block_auroc_by_hand():
    # Block sums 4, 3, 2, 1; the mask touches the second; the fourth is outside.
    heatmap = np.array([[1, 1, 3, 0], [1, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]])
    mask, region = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    mask[1, 3] = True
    region[:2, :] = region[2, 0] = True
    assert localization.block_auroc(heatmap, mask, region, 2) == 0.5
    region[3, 3] = True
    assert localization.block_auroc(heatmap, mask, region, 2) == pytest.approx(2 / 3)
    assert np.isnan(localization.block_auroc(heatmap, mask & False, region, 2))
    with pytest.raises(ValueError, match="block=3"):
        localization.block_auroc(heatmap, mask, region, 3)


def test_block_aurocs_of_many_images_are_those_of_each():
    rng = np.random.default_rng(5)
    maps = rng.integers(0, 3, (7, 8, 8)).astype(np.float32)
    masks, regions = rng.random((2, 7, 8, 8)) < 0.1
    maps[3, 0, 0], regions[3] = np.inf, True
    masks[4] = False
    found = localization.block_aurocs(maps, masks, regions, 2)
    images = zip(maps, masks, regions, strict=True)
    each = [localization.block_auroc(*image, 2) for image in images]
    np.testing.assert_array_equal(found, each)
    assert np.isnan(found[[3, 4]]).all() and np.isfinite(found[[0, 1, 2]]).all()


def test_localization_leaves_images_of_one_class_out():
    heatmap = np.arange(16).reshape(4, 4)
    top, none = heatmap > 14, heatmap > 99
    images = [heatmap] * 2, [top, none], [heatmap >= 0] * 2
    assert localization.localization(*images, 2) == 1


def test_position_template_leaves_the_image_itself_out():
    maps = np.arange(4.0)[:, None, None] * np.ones((4, 2, 2))
    template = localization.position_template(maps, np.array([1, 1, 0, 1], bool))
    expected = [(1 + 3) / 2, (0 + 3) / 2, (0 + 1 + 3) / 3, (0 + 1) / 2]
    np.testing.assert_allclose(template[:, 0, 0], expected)
    total = maps[[0, 1, 3]].sum(0)
    part = localization.position_template(maps[1:2], np.array([True]), total, 3)
    np.testing.assert_allclose(part, template[1:2])
    alone = localization.position_template(maps, np.array([1, 0, 0, 0], bool))
    assert np.isnan(alone[0]).all() and (alone[1:] == 0).all()


def test_statistics_are_those_of_repeated_images():
    rng = np.random.default_rng(1)
    scores, is_ood = rng.integers(0, 9, 30), rng.random(30) < 0.5
    counts = rng.multinomial(30, np.full(30, 1 / 30), size=4)
    found = bootstrap.auroc_of(scores, is_ood)(counts.astype(float))
    means = bootstrap.mean_of(scores)(counts.astype(float))
    for r, count in enumerate(counts):
        index = np.repeat(np.arange(30), count)
        assert found[r] == pytest.approx(metrics.auroc(scores[index], is_ood[index]))
        assert means[r] == pytest.approx(scores[index].mean())


def test_resamples_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    rng = np.random.default_rng(6)
    scores, is_ood = rng.normal(size=30), rng.random(30) < 0.5
    statistics = {
        "a": bootstrap.auroc_of(scores, is_ood),
        "b": bootstrap.mean_of(scores),
    }
    whole = bootstrap.resampled(statistics, range(30), resamples=50)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 7 * 30)
    parts = bootstrap.resampled(statistics, range(30), resamples=50)
    for name, values in whole.items():
        assert values.shape == (51,)
        np.testing.assert_allclose(parts[name], values, rtol=1e-12)
    assert whole["a"][0] == pytest.approx(metrics.auroc(scores, is_ood))


def test_both_ways_to_draw_follow_one_law(monkeypatch):
    n, size = 50, 4000
    for few in (0, n):
        monkeypatch.setattr(bootstrap, "_FEW", few)
        drawn = bootstrap._drawn(np.random.default_rng(7), n, size)
        assert drawn.shape == (size, n) and (drawn.sum(1) == n).all()
        # Counts are binomial(n, 1/n): mean 1, variance 1 - 1/n.
        error = 1 / np.sqrt(size)
        assert abs(drawn.mean(0) - 1).max() < 4.5 * error
        assert abs(drawn.var() - (1 - 1 / n)) < 4.5 * np.sqrt(3) / np.sqrt(size * n)


def test_mean_of_leaves_nan_out():
    interval = bootstrap.bootstrap(
        bootstrap.mean_of(np.array([1.0, np.nan, 3.0])), range(3)
    )
    assert interval["value"] == 2 and 1 <= interval["low"] <= interval["high"] <= 3


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        statistic = bootstrap.mean_of(rng.normal(size=40))
        interval = bootstrap.bootstrap(statistic, range(40), resamples=300)
        covered += interval["low"] <= 0 <= interval["high"]
    # Binomial(200, 0.95) minus about 0.015 that percentile intervals lack at n = 40.
    assert 177 <= covered <= 197


def test_interval_of_dependent_patients_is_wider():
    rng = np.random.default_rng(3)
    values = np.repeat(rng.normal(size=8), 10)
    statistic = bootstrap.mean_of(values)
    images = bootstrap.bootstrap(statistic, range(80))
    patients = bootstrap.bootstrap(statistic, np.repeat(list("abcdefgh"), 10))
    width = [i["high"] - i["low"] for i in (images, patients)]
    assert width[1] > 2.5 * width[0]
    assert images["value"] == patients["value"]


def test_paired_difference_removes_what_two_methods_share():
    rng = np.random.default_rng(4)
    shared = rng.normal(size=50)
    a, b = shared + 0.1 + 0.01 * rng.normal(size=50), shared
    difference = bootstrap.paired_difference(
        bootstrap.mean_of(a), bootstrap.mean_of(b), range(50)
    )
    assert 0.09 < difference["low"] < difference["high"] < 0.11
    alone = bootstrap.bootstrap(bootstrap.mean_of(a), range(50))
    assert alone["low"] < 0 < alone["high"]


def test_polarity_of_fpr95():
    """6 of 100 OOD images below all ID: one convention says 100 %, the other 6 %."""
    scores = np.concatenate([np.linspace(0, 1, 100), np.full(94, 10), np.full(6, -10)])
    is_ood = np.arange(200) >= 100
    assert metrics.fpr95_ood_pos(scores, is_ood) == 1
    assert metrics.fpr95_id_pos(scores, is_ood) == 0.06
    assert metrics.auroc(scores, is_ood) == pytest.approx(0.94)


def test_aupr_is_the_trapezoid():
    # Points (recall, precision): (0, 1), (0.5, 1), (0.5, 0.5), (1, 2/3), then (1, 0.5).
    value = metrics.aupr(np.array([4, 3, 2, 1]), np.array([1, 0, 1, 0], bool))
    assert value == pytest.approx(0.5 + 0.5 * (0.5 + 2 / 3) / 2)


def test_psnr():
    assert metrics.psnr(np.zeros((2, 2)), np.full((2, 2), 0.1)) == pytest.approx(20)
    assert metrics.psnr(np.ones(3), np.ones(3)) == np.inf


def test_ccr_by_hand():
    scores = np.array([0.1, 0.2, 0.5, 0.9, 0.3, 0.6, 0.7, 0.8])
    is_ood = np.arange(8) >= 4
    correct = np.array([1, 0, 1, 1, 0, 1, 0, 1], bool)
    # At most none, one, all of the OOD images pass: below .3, .6, any.
    for rate, expected in ((0.0, 1 / 4), (0.25, 2 / 4), (1.0, 3 / 4)):
        assert metrics.ccr(scores, is_ood, correct, rate) == expected
    assert np.isnan(metrics.ccr(scores, is_ood | True, correct, 0.1))
