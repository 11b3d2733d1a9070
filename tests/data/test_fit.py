"""Another size, and back: what is seen lies where it was in the input."""

import numpy as np
import pytest

from klip_jax.data.base import in_memory
from klip_jax.data.base_geometry import Place
from klip_jax.data.base_join import join
from klip_jax.data.fit import load, plan

RNG = np.random.default_rng(0)


def make(height=13, width=9, channels=1, **known):
    pixels = np.float32(RNG.uniform(size=(3, height, width, channels)))
    return in_memory(pixels, ("a", "b", "c"), ("id",) * 3, **known)


def test_padding_comes_off_again_and_is_never_eligible():
    data = make(body=np.ones((3, 13, 9), bool))
    fitted = load(data=data, pad=(8,))
    assert fitted.shape == (16, 16, 1) and fitted.regions == ("eligible", "body")
    fit = fitted.fits[0]
    np.testing.assert_array_equal(fit.back(fitted.images[..., 0]), data.images[..., 0])
    assert fit.inside.sum() == 13 * 9
    np.testing.assert_array_equal(fitted.eligible, fitted.body)
    np.testing.assert_array_equal(fitted.eligible[1], fit.inside)
    # The edge goes on, so that nothing new is to be seen.
    np.testing.assert_array_equal(fitted.images[:, 0, 3:12], data.images[:, 0])
    zero = load(data=data, pad=(16, 16), padding="zero")
    assert not zero.images[:, ~fit.inside].any()


def test_what_needs_no_padding_stays_unknown():
    fitted = load(data=make(), crop=(8, 8))
    assert fitted.regions == () and fitted.eligible is None
    np.testing.assert_array_equal(fitted.images, fitted.read([0, 1, 2]).images)


def test_a_crop_comes_back_where_it_was():
    data = make()
    fitted = load(data=data, crop=(2, 1, 8, 4))
    np.testing.assert_array_equal(fitted.images, data.images[:, 2:10, 1:5])
    back = fitted.fits[0].back(fitted.images[..., 0])
    np.testing.assert_array_equal(back[:, 2:10, 1:5], data.images[:, 2:10, 1:5, 0])
    assert np.isnan(back).sum() == 3 * (13 * 9 - 32)


def test_a_ramp_is_resized_and_comes_back():
    """Linear pictures stay linear: bilinear both ways, but for the borders."""
    ramp = np.float32(np.arange(24)[:, None] + 2 * np.arange(40))[None, ..., None] / 110
    data = in_memory(ramp, ("r",), ("id",))
    fitted = load(data=data, resize=(20,), pad=(16, 32))
    assert fitted.fits[0].resized == (12, 20) and fitted.shape == (16, 32, 1)
    inner = fitted.images[0, 2:14, 6:26, 0]
    # The middle of a new pixel is the middle of the four that it is made of.
    np.testing.assert_allclose(
        inner[1:-1, 1:-1],
        ramp[0, :, :, 0].reshape(12, 2, 20, 2).mean((1, 3))[1:-1, 1:-1],
        atol=1e-6,
    )
    back = fitted.fits[0].back(fitted.images[..., 0])[0]
    np.testing.assert_allclose(back[3:-3, 3:-3], ramp[0, 3:-3, 3:-3, 0], atol=1e-5)
    row, column = fitted.fits[0].pixel(2, 6)
    assert (row, column) == (0.5, 0.5)


def test_a_peak_comes_back_to_its_pixels():
    fit = plan((100, 60), crop=(90, 50), resize=(45, 25), pad=(48, 32))
    image = np.zeros((1, 48, 32), np.float32)
    image[0, 20, 11] = 1
    row, column = np.unravel_index(np.nanargmax(fit.back(image)[0]), (100, 60))
    expected = fit.pixel(20, 11)
    assert abs(row - expected[0]) <= 0.5 and abs(column - expected[1]) <= 0.5


def test_masks_keep_their_area():
    masks = np.zeros((3, 32, 32), bool)
    masks[:, 8:16, 10:20] = True
    data = make(32, 32, masks=masks)
    fitted = load(data=data, resize=(16, 16))
    assert fitted.masks[0].sum() == 20 and fitted.masks[0, 4:8, 5:10].all()


def test_spacing_follows_the_pixels():
    fit = plan((100, 60), crop=(80, 40), resize=(40, 10), pad=(64, 64))
    assert fit.spacing((0.5, 0.25)) == (1.0, 1.0) and fit.spacing(None) is None


def test_grey_and_rgb():
    colour = load(data=make(channels=3), channels=1)
    assert colour.shape == (13, 9, 1)
    grey = make()
    rgb = load(data=grey, channels=3)
    np.testing.assert_array_equal(rgb.images, np.repeat(grey.images, 3, -1))
    again = np.float32(np.full((1, 2, 2, 3), 0.25))
    again = load(data=in_memory(again, "a", ("id",)), channels=1)
    np.testing.assert_allclose(again.images, 0.25, atol=1e-7)
    with pytest.raises(ValueError, match="the images have 2 channels; only RGB"):
        load(data=make(channels=2), channels=1)


def test_sets_of_other_sizes_are_one_after_they_were_fitted():
    both = join([load(data=make(9, 9), pad=(16, 16)), make(16, 16)])
    assert [fit.pads for fit in both.fits] == [True] * 3 + [False] * 3
    assert both.take([4, 0]).fits[1].source == (9, 9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(crop=(20, 9)), r"data\.crop=\(20, 9\): does not lie in images of 13x9"),
        (dict(pad=(8, 16)), r"data\.pad=\(8, 16\): smaller than the images, 13x9"),
        (dict(resize=(0, 4)), r"data\.resize=\(0, 4\): give 1 or 2 whole numbers"),
        (dict(pad=(1, 2, 3)), r"data\.pad=.*give 1 or 2"),
        (dict(resize=(10**9,)), "at most 16384"),
        (dict(padding="wrap"), "padding='wrap': give one of edge, reflect, zero"),
        (dict(channels=2), r"data\.channels=2: 1 for grey"),
    ],
)
def test_sizes_that_cannot_be(settings, words):
    with pytest.raises(ValueError, match=words):
        load(data=make(), **settings)


def test_sizes_are_given_once():
    with pytest.raises(ValueError, match="fitted already"):
        load(data=load(data=make(), pad=(16,)), pad=(32,))


@pytest.mark.parametrize("axes", [((2, 1), (1, -1), (0, 1)), ((0, 1), (1, 1), (2, -1))])
def test_a_slice_is_laid_as_it_was_stored(axes):
    stored = RNG.uniform(size=(4, 6))
    place = Place("x.nii", 3, axes)
    np.testing.assert_array_equal(place.laid(place.shown(stored)), stored)
