import numpy as np
import pytest

from klip_jax import pixels


def test_aupro_by_hand():
    mask = np.array([[1, 0, 0, 0], [0, 0, 1, 1]], bool)
    heatmap = np.array([[9, 7, 5, 2], [1, 0, 8, 3]])
    image = [heatmap], [mask], [np.ones_like(mask)]
    # Overlap is 3/4 up to an FPR of 2/5, then 1.
    assert pixels.aupro(*image, 0.3) == pytest.approx(0.75)
    assert pixels.aupro(*image, 0.5) == pytest.approx(0.8)
    assert pixels.aupro([mask * 1.0], *image[1:], 0.05) == pytest.approx(1)
    # Five more normal pixels of a defect-free image, all low: FPR halves, 0.75 to 1/5.
    clean = np.zeros((1, 5)) - 1, np.zeros((1, 5), bool), np.ones((1, 5), bool)
    both = [[*a, b] for a, b in zip(image, clean, strict=True)]
    assert pixels.aupro(*both, 0.3) == pytest.approx((0.75 * 0.2 + 0.1) / 0.3)


def test_aupro_components_are_8_connected():
    mask = np.eye(3, dtype=bool)[:2]
    heatmap = np.array([[9.0, 0, 0], [0, 0, 0]])
    # One component of two pixels; two components would give the same 1/2 in one image,
    # so a second image with a found pixel tells them apart: (1/2 + 1) / 2, not 2 / 3.
    other = np.array([[1, 0, 0], [0, 0, 0]], bool)
    value = pixels.aupro(
        [heatmap, other * 9.0], [mask, other], [np.ones_like(mask)] * 2, 1e-9
    )
    assert value == pytest.approx(0.75, abs=1e-6)


def test_dice_by_hand():
    labels = np.array([1, 1, 0, 0, 1], bool)
    assert pixels.best_dice(np.array([9, 8, 7, 5, 3]), labels) == 0.8
    assert pixels.best_dice(np.zeros(5), labels) == pytest.approx(6 / 8)
    assert pixels.dice(np.array([1, 0, 1, 0, 0], bool), labels) == pytest.approx(0.4)


def test_pixel_metrics_of_a_perfect_map():
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    clean = np.linspace(0, 1, 64).reshape(8, 8)
    everywhere = [np.ones((8, 8), bool)] * 2
    pixel = pixels.pixel_metrics(
        [mask + 0.0, clean / 2], [mask, mask & False], everywhere, [False, True]
    )
    assert pixel["auroc"] == pixel["ap"] == pixel["aupro30"] == 1
    assert pixel["dice_best"] == 1
    assert pixel["prevalence"] == 4 / 128
    # 3 of the 64 ID pixels exceed the threshold and count as false positives.
    assert pixel["dice_fpr05_id"] == pytest.approx(8 / (8 + 3))
