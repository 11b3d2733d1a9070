"""What becomes an image or a mask, and what is refused instead of guessed."""

import numpy as np
import pytest

from klip_jax.data.transforms import Greys, check_shrink, ellipse, mask_of, shrunk

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (2, 4, 5), np.uint8)


def test_greys_become_images():
    Greys(50, 205).check(np.clip(BYTES, 50, 255), "x")
    images = Greys(50, 205).images(np.clip(BYTES, 50, 255))
    assert images.shape == (2, 4, 5, 1) and images.dtype == np.float32
    expected = (np.clip(BYTES, 50, 255)[..., None] - 50.0) / 205
    np.testing.assert_allclose(images, expected, atol=1e-6)
    colour = RNG.uniform(size=(2, 4, 5, 3))
    Greys(0, 1).check(colour, "x")
    np.testing.assert_allclose(Greys(0, 1).images(colour), colour, atol=1e-6)


def test_floats_in_the_unit_interval_do_not_become_black():
    floats = RNG.uniform(size=(2, 4, 5))
    words = r"f\.npz: greys are floats up to 0\.\d+, .*give data.scale=1"
    with pytest.raises(ValueError, match=words):
        Greys().check(floats, "f.npz")
    Greys(scale=1).check(floats, "f.npz")
    Greys().check(255 * floats, "f.npz")


def test_rounding_of_integers_is_cut_and_nothing_more():
    greys = np.full((1, 10, 10), 100, np.uint8)
    greys[0, 0, 0] = 49
    Greys(50, 205).check(greys, "x")
    assert Greys(50, 205).images(greys).min() == 0
    greys[0, 0, 0] = 48
    with pytest.raises(ValueError, match=r"found \[-0\.0097\d+, .*1.00% of the pixels"):
        Greys(50, 205).check(greys, "x")


@pytest.mark.parametrize(
    ("greys", "share"),
    [
        # Hounsfield units over 1000 at scale 1, and attenuation with one metal pixel.
        (np.linspace(-1, 1, 100).reshape(1, 10, 10), "50.00%"),
        (np.where(np.arange(100) == 7, 0.9, 0.02).reshape(1, 10, 10), "1.00%"),
    ],
)
def test_floats_outside_the_range_are_not_cut_in_silence(greys, share):
    scale = 1.0 if greys.min() < 0 else 0.05
    with pytest.raises(ValueError, match=rf"{share} of the pixels outside; .*clip=T"):
        Greys(0.0, scale).check(greys, "x")
    Greys(0.0, scale, clip=True).check(greys, "x")
    images = Greys(0.0, scale, clip=True).images(greys)
    assert images.min() >= 0 and images.max() == 1


@pytest.mark.parametrize(
    "greys",
    [
        BYTES + 1j,
        np.array([["a", "b"]] * 2).reshape(1, 2, 2),
        np.zeros((1, 2, 2), "datetime64[s]"),
        np.zeros((1, 2, 2), object),
    ],
    ids=lambda greys: str(greys.dtype),
)
def test_images_are_real_numbers(greys):
    with pytest.raises(ValueError, match=r"x: images of .*; they must be real"):
        Greys().check(greys, "x")


def test_numbers_that_cannot_work():
    for scale in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"data\.scale="):
            Greys(0, scale).check(BYTES, "x")
    with pytest.raises(ValueError, match=r"data\.offset=nan"):
        Greys(float("nan"), 1).check(BYTES, "x")


def test_masks_of_two_values_and_of_labels():
    two = np.where(np.eye(4), 7, 0)
    for values in (two > 0, two, np.uint8(two), two / 7):
        np.testing.assert_array_equal(mask_of(values, 0, "x"), np.eye(4) > 0)
    assert not mask_of(np.zeros(3, int), 0, "x").any()
    organ = two.copy()
    organ[:2] += 1  # 1 is the organ, 8 and 7 the lesion
    with pytest.raises(ValueError, match=r"x: .*labels 0, 1, 7, 8; .*data.label"):
        mask_of(organ, 0, "x")
    np.testing.assert_array_equal(mask_of(organ, 1, "x"), organ == 1)
    with pytest.raises(ValueError, match="a mask of complex128"):
        mask_of(two * 1j, 0, "x")


@pytest.mark.parametrize("white", [1.0, 255, 65535])
def test_half_of_an_antialiased_edge_is_mask(white):
    edge = np.array([0, 0.2, 0.49, 0.51, 1]) * white
    edge = edge if white == 1 else edge.astype(np.uint16)
    np.testing.assert_array_equal(mask_of(edge, 0, "x"), [0, 0, 0, 1, 1])


def test_squares_and_ellipses():
    array = np.arange(32.0).reshape(2, 4, 4)
    np.testing.assert_allclose(
        shrunk(array, 2), array.reshape(2, 2, 2, 2, 2).mean((2, 4))
    )
    assert shrunk(array, 1) is array
    check_shrink(array.shape, 2, "x")
    with pytest.raises(ValueError, match=r"x is 4x4, which data\.shrink=3"):
        check_shrink(array.shape, 3, "x")
    inside = ellipse((40, 60), (0.5, 0.5, 0.25, 0.25))
    assert abs(inside.sum() - np.pi * 10 * 15) < 10
