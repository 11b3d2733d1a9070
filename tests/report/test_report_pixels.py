import base64
import io

import numpy as np
import pytest
from PIL import Image

from klip_jax.report import pixels


def read(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_color_limits_are_robust_and_symmetric_if_signed():
    spike = np.zeros((32, 32))
    spike[:16] = 1
    spike[0, 0] = 1000
    assert pixels.color_limits([spike]) == (0, 1)
    low, high = pixels.color_limits([np.random.default_rng(0).normal(size=(32, 32))])
    assert low == -high and 2 < high < 4
    for empty in ([np.zeros((32, 32))], [np.full((32, 32), np.nan)], []):
        assert pixels.color_limits(empty) == (0, 1)


def test_one_map_in_another_unit_does_not_blacken_the_others():
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    maps = [ramp, 2 * ramp, 0.1 * ramp, 1e6 * ramp, 0 * ramp]
    limits = pixels.own_limits(maps)
    one = pixels.color_limits([ramp])[1]
    # The floor is the median of the four that are not empty.
    highs = [1.5, 2, 1.5, 1e6, 1.5]
    assert [high / one for _, high in limits] == pytest.approx(highs)
    assert {low for low, _ in limits} == {0.0}
    assert pixels.own_limits([ramp - 0.5])[0][0] < 0
    assert pixels.own_limits([]) == []


def test_images_survive_in_8_bits():
    grey = np.linspace(0, 1, 12).reshape(3, 4, 1)
    np.testing.assert_allclose(
        read(pixels.image_picture(grey)) / 255, grey[..., 0], atol=1 / 510
    )
    colour = np.random.default_rng(0).uniform(size=(3, 4, 3))
    np.testing.assert_allclose(
        read(pixels.image_picture(colour)) / 255, colour, atol=1 / 510
    )
    complex_ = np.stack([np.full((3, 4), 0.3), np.full((3, 4), 0.4)], -1)
    np.testing.assert_allclose(
        read(pixels.image_picture(complex_)) / 255, 0.5, atol=1 / 255
    )
    broken = np.array([[[np.nan], [np.inf], [-1], [2]]])
    assert read(pixels.image_picture(broken)).tolist() == [[0, 255, 0, 255]]


def test_maps_are_value_over_scale():
    heatmap = np.array([[-1, 0, 0.5, 1, 2, np.nan, np.inf]])
    seen = read(pixels.map_picture(heatmap, (0, 1)))
    assert seen.tolist() == [[0, 0, 128, 255, 255, 0, 255]]
    seen = read(pixels.map_picture(heatmap, (-1, 1)))
    assert seen.tolist() == [[0, 128, 191, 255, 255, 128, 255]]


def test_large_pictures_are_shrunk_to_means_of_blocks():
    image = np.arange(24.0).reshape(4, 6)
    whole = image.reshape(2, 2, 3, 2).mean((1, 3))
    np.testing.assert_array_equal(pixels.shrunk(image, 3), whole)
    assert pixels.shrunk(image, 6) is image
    # A side that is no multiple is continued at its edge.
    assert pixels.shrunk(np.ones((5, 7, 3)), 4).shape == (3, 4, 3)
    assert (pixels.shrunk(np.ones((5, 7, 3)), 4) == 1).all()


def test_the_peak_is_the_highest_finite_pixel():
    heatmap = np.zeros((5, 7))
    heatmap[3, 6], heatmap[0, 0] = 2.0, np.nan
    assert pixels.peak_of(heatmap) == (3, 6)
    for none in (np.zeros((4, 4)), np.full((4, 4), np.nan)):
        assert pixels.peak_of(none) is None


def test_the_outline_is_around_the_marked_pixels():
    mask = np.zeros((5, 6), bool)
    mask[1, 2:4] = True
    assert pixels.outline_path(mask) == "M2 1h2M2 2h2M2 1v1M4 1v1"
    assert pixels.outline_path(np.zeros((5, 6), bool)) == ""
    # To the rim, and a hole has an outline of its own.
    mask[:] = True
    mask[2, 2] = False
    path = pixels.outline_path(mask)
    assert (
        path.startswith("M0 0h6") and "M2 2h1M2 3h1" in path and "M2 2v1M3 2v1" in path
    )
