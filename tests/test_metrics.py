import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from klip_jax import metrics


def test_auroc_of_perfect_reversed_and_tied_scores():
    labels = np.array([0, 0, 1, 1], bool)
    assert metrics.auroc(np.array([1, 2, 3, 4]), labels) == 1
    assert metrics.auroc([4, 3, 2, 1], labels) == 0
    assert metrics.auroc([5, 5, 5, 5], labels) == 0.5
    assert metrics.auroc([1, 2, 2, 3], labels) == 0.875
    assert np.isnan(metrics.auroc([1, 2, 3, 4], np.ones(4, bool)))


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
    assert metrics.block_auroc(heatmap, mask, region, 2) == 0.5
    region[3, 3] = True
    assert metrics.block_auroc(heatmap, mask, region, 2) == pytest.approx(2 / 3)
    assert np.isnan(metrics.block_auroc(heatmap, mask & False, region, 2))
    with pytest.raises(ValueError, match="block=3"):
        metrics.block_auroc(heatmap, mask, region, 3)


def test_localization_leaves_images_of_one_class_out():
    heatmap = np.arange(16).reshape(4, 4)
    top, none = heatmap > 14, heatmap > 99
    images = [heatmap] * 2, [top, none], [heatmap >= 0] * 2
    assert metrics.localization(*images, 2) == 1


def test_position_template_leaves_the_image_itself_out():
    maps = np.arange(4.0)[:, None, None] * np.ones((4, 2, 2))
    template = metrics.position_template(maps, [True, True, False, True])
    expected = [(1 + 3) / 2, (0 + 3) / 2, (0 + 1 + 3) / 3, (0 + 1) / 2]
    np.testing.assert_allclose(template[:, 0, 0], expected)
    alone = metrics.position_template(maps, [True, False, False, False])
    assert np.isnan(alone[0]).all() and (alone[1:] == 0).all()


def test_statistics_are_those_of_repeated_images():
    rng = np.random.default_rng(1)
    scores, is_ood = rng.integers(0, 9, 30), rng.random(30) < 0.5
    counts = rng.multinomial(30, np.full(30, 1 / 30), size=4)
    found = metrics.auroc_of(scores, is_ood)(counts.astype(float))
    means = metrics.mean_of(scores)(counts.astype(float))
    for r, count in enumerate(counts):
        index = np.repeat(np.arange(30), count)
        assert found[r] == pytest.approx(metrics.auroc(scores[index], is_ood[index]))
        assert means[r] == pytest.approx(scores[index].mean())


def test_mean_of_leaves_nan_out():
    interval = metrics.bootstrap(metrics.mean_of([1.0, np.nan, 3.0]), range(3))
    assert interval["value"] == 2 and 1 <= interval["low"] <= interval["high"] <= 3


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        statistic = metrics.mean_of(rng.normal(size=40))
        interval = metrics.bootstrap(statistic, range(40), resamples=300)
        covered += interval["low"] <= 0 <= interval["high"]
    # Binomial(200, 0.95) minus about 0.015 that percentile intervals lack at n = 40.
    assert 177 <= covered <= 197


def test_interval_of_dependent_patients_is_wider():
    rng = np.random.default_rng(3)
    values = np.repeat(rng.normal(size=8), 10)
    statistic = metrics.mean_of(values)
    images = metrics.bootstrap(statistic, range(80))
    patients = metrics.bootstrap(statistic, np.repeat(list("abcdefgh"), 10))
    width = [i["high"] - i["low"] for i in (images, patients)]
    assert width[1] > 2.5 * width[0]
    assert images["value"] == patients["value"]


def test_paired_difference_removes_what_two_methods_share():
    rng = np.random.default_rng(4)
    shared = rng.normal(size=50)
    a, b = shared + 0.1 + 0.01 * rng.normal(size=50), shared
    difference = metrics.paired_difference(
        metrics.mean_of(a), metrics.mean_of(b), range(50)
    )
    assert 0.09 < difference["low"] < difference["high"] < 0.11
    alone = metrics.bootstrap(metrics.mean_of(a), range(50))
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


def test_aupro_by_hand():
    mask = np.array([[1, 0, 0, 0], [0, 0, 1, 1]], bool)
    heatmap = np.array([[9, 7, 5, 2], [1, 0, 8, 3]])
    image = [heatmap], [mask], [np.ones_like(mask)]
    # Overlap is 3/4 up to an FPR of 2/5, then 1.
    assert metrics.aupro(*image, 0.3) == pytest.approx(0.75)
    assert metrics.aupro(*image, 0.5) == pytest.approx(0.8)
    assert metrics.aupro([mask * 1.0], *image[1:], 0.05) == pytest.approx(1)
    # Five more normal pixels of a defect-free image, all low: FPR halves, 0.75 to 1/5.
    clean = np.zeros((1, 5)) - 1, np.zeros((1, 5), bool), np.ones((1, 5), bool)
    both = [[*a, b] for a, b in zip(image, clean, strict=True)]
    assert metrics.aupro(*both, 0.3) == pytest.approx((0.75 * 0.2 + 0.1) / 0.3)


def test_aupro_components_are_8_connected():
    mask = np.eye(3, dtype=bool)[:2]
    heatmap = np.array([[9.0, 0, 0], [0, 0, 0]])
    # One component of two pixels; two components would give the same 1/2 in one image,
    # so a second image with a found pixel tells them apart: (1/2 + 1) / 2, not 2 / 3.
    other = np.array([[1, 0, 0], [0, 0, 0]], bool)
    value = metrics.aupro(
        [heatmap, other * 9.0], [mask, other], [np.ones_like(mask)] * 2, 1e-9
    )
    assert value == pytest.approx(0.75, abs=1e-6)


def test_dice_by_hand():
    labels = np.array([1, 1, 0, 0, 1], bool)
    assert metrics.best_dice(np.array([9, 8, 7, 5, 3]), labels) == 0.8
    assert metrics.best_dice(np.zeros(5), labels) == pytest.approx(6 / 8)
    assert metrics.dice(np.array([1, 0, 1, 0, 0], bool), labels) == pytest.approx(0.4)


def test_pixel_metrics_of_a_perfect_map():
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    clean = np.linspace(0, 1, 64).reshape(8, 8)
    everywhere = [np.ones((8, 8), bool)] * 2
    pixel = metrics.pixel_metrics(
        [mask + 0.0, clean / 2], [mask, mask & False], everywhere, [False, True]
    )
    assert pixel["auroc"] == pixel["ap"] == pixel["aupro30"] == 1
    assert pixel["dice_best"] == 1
    assert pixel["prevalence"] == 4 / 128
    # 3 of the 64 ID pixels exceed the threshold and count as false positives.
    assert pixel["dice_fpr05_id"] == pytest.approx(8 / (8 + 3))


def test_psnr():
    assert metrics.psnr(np.zeros((2, 2)), np.full((2, 2), 0.1)) == pytest.approx(20)
    assert metrics.psnr(np.ones(3), np.ones(3)) == np.inf
