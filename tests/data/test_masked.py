"""Masks of the same names say what is odd, and where."""

import numpy as np
import pytest
from PIL import Image

from klip_jax.data import masked
from klip_jax.data.base import in_memory

ODD = np.zeros((6, 8), bool)
ODD[1:3, 2:5] = True


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "a.png", ODD)
    write(tmp_path, "b_mask.png", ~ODD & ODD)
    (tmp_path / "notes.txt").write_text("not a mask")
    return tmp_path


@pytest.fixture(scope="module")
def images():
    pixels = np.float32([[0.1], [0.2], [0.3]])[:, :, None, None]
    return in_memory(np.broadcast_to(pixels, (3, 6, 8, 1)), ["a", "b", "c.1"], [""] * 3)


def write(folder, name, mask):
    Image.fromarray(np.uint8(255 * mask)).save(folder / name)


def test_groups_and_masks(images, folder):
    own = masked.load(data=images, folder=str(folder))
    assert own.groups == ("anomalous", "id", "") and "masks" in own.regions
    read = own.read([2, 0])
    np.testing.assert_array_equal(read.masks, [np.zeros_like(ODD), ODD])
    np.testing.assert_array_equal(read.images[:, 0, 0, 0], np.float32([0.3, 0.1]))
    own = masked.load(data=images, folder=str(folder), absent="id", anomalous="tumour")
    assert own.groups == ("tumour", "id", "id")
    write(folder, "c.1_mask.png", ODD)
    assert masked.load(data=images, folder=str(folder)).groups[2] == "anomalous"


def test_what_is_no_mask(images, folder):
    with pytest.raises(FileNotFoundError, match="no such folder of masks"):
        masked.load(data=images, folder=str(folder / "none"))
    write(folder, "d.png", ODD)
    with pytest.raises(ValueError, match="a mask of no image; there is no 'd'"):
        masked.load(data=images, folder=str(folder))
    (folder / "d.png").rename(folder / "a_mask.png")
    with pytest.raises(ValueError, match=r"the image 'a' has a\.png too"):
        masked.load(data=images, folder=str(folder))
    (folder / "a_mask.png").unlink()
    write(folder, "a.png", ODD.T)
    with pytest.raises(ValueError, match="a mask of 8x6 for images of 6x8"):
        masked.load(data=images, folder=str(folder))
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="no masks; they are"):
        masked.load(data=images, folder=str(empty))
