"""Inpainting masks."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from klip_jax.operators.mask import Box, Half, Mask, Random

IMAGE = jnp.arange(5 * 6 * 2.0).reshape(5, 6, 2)


def seen(op):
    """Return the boolean mask [H, W] that an operator applies."""
    return np.asarray(op.adjoint(jnp.ones(op.out_shape)))[..., 0] == 1


def test_mask_lists_the_seen_pixels_in_row_order():
    mask = np.random.default_rng(0).random((5, 6)) < 0.4
    op = Mask(IMAGE.shape, mask)
    np.testing.assert_array_equal(op(IMAGE), np.asarray(IMAGE)[mask])
    np.testing.assert_array_equal(op.adjoint(op(IMAGE)), IMAGE * mask[..., None])


def test_box_hides_its_rectangle():
    expected = np.ones((5, 6), bool)
    expected[1:3, 2:6] = False
    box = Box(IMAGE.shape, top=1, left=2, height=2, width=4)
    np.testing.assert_array_equal(seen(box), expected)
    assert (~seen(Box((8, 8, 1)))).sum() == 16


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_half_hides_its_side(side):
    row, column = np.mgrid[:5, :6]
    hidden = {
        "left": column < 3,
        "right": column >= 3,
        "top": row < 2,
        "bottom": row >= 3,
    }[side]
    np.testing.assert_array_equal(seen(Half(IMAGE.shape, side=side)), ~hidden)


def test_random_keeps_its_fraction_and_its_seed():
    shape = (20, 30, 1)
    a, b, c = (Random(shape, keep=0.3, seed=s) for s in (1, 1, 2))
    assert a.out_shape == (180, 1)
    np.testing.assert_array_equal(a.pixels, b.pixels)
    assert (seen(a) != seen(c)).any()


@pytest.mark.parametrize("name", ["mask.npy", "mask.png", "GREY.PNG", "deep.png"])
def test_mask_is_read_from_a_file(tmp_path, name):
    mask = np.random.default_rng(0).random((5, 6)) < 0.4
    path = tmp_path / name
    if name == "mask.npy":
        np.save(path, mask)
    else:
        value = {"mask.png": mask, "GREY.PNG": np.uint8(3 * mask)}
        Image.fromarray(value.get(name, np.uint16(300 * mask))).save(path)
    np.testing.assert_array_equal(seen(Mask(IMAGE.shape, path)), mask)
    np.testing.assert_array_equal(seen(Mask(IMAGE.shape, seen=str(path))), mask)


def test_wrong_mask_files_raise(tmp_path):
    def refuse(name, message, write):
        write(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            Mask(IMAGE.shape, tmp_path / name)

    objects = np.array([None, {}], object)
    refuse("a.npy", "a.npy: not a mask", lambda path: np.save(path, objects))
    refuse("b.npy", "shape .3, 3.: must be .5, 6.", lambda p: np.save(p, np.eye(3)))
    refuse("c.npy", "sees no pixel", lambda p: np.save(p, np.zeros((5, 6))))
    refuse("d.npy", "d.npy: not a mask", lambda path: path.write_bytes(b"no"))
    refuse("e.png", "e.png: not a mask", lambda path: path.write_bytes(b"no"))
    refuse("f.png", "mode RGB; convert", lambda p: Image.new("RGB", (6, 5)).save(p))
    refuse("g.png", "sees no pixel", lambda p: Image.new("L", (6, 5)).save(p))
    refuse("h.txt", "must end in .npy or .png", lambda path: path.write_text("1"))
    with pytest.raises(FileNotFoundError, match=r"absent\.npy"):
        Mask(IMAGE.shape, tmp_path / "absent.npy")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mask((3, 3, 1), np.zeros((3, 3))), "sees no pixel"),
        (lambda: Mask((3, 3, 1), np.ones((3, 4))), "shape"),
        (lambda: Box((3, 3, 1), top=0, left=0, height=3, width=3), "sees no pixel"),
        (lambda: Box((3, 3, 1), top=2, height=2), "inside"),
        (lambda: Random((3, 3, 1), keep=0.0), "keep=0.0"),
        (lambda: Half((3, 3, 1), side="north"), "north"),
    ],
)
def test_wrong_settings_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()
