import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from klip_jax.data import folder

RNG = np.random.default_rng(0)
GREYS = RNG.integers(0, 256, (12, 6, 5), dtype=np.uint8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def grouped(tmp_path):
    """Two groups; one has masks, the other eligible regions."""
    for i in range(12):
        write(tmp_path / f"set/id/{i}.png", GREYS[i])
        write(tmp_path / f"set/id_eligible/{i}.png", np.uint8(GREYS[i] > 99))
    for i in range(3):
        write(tmp_path / f"set/ood/{i}.png", 255 - GREYS[i])
        write(tmp_path / f"set/ood_masks/{i}.png", GREYS[i] > 127)
    return tmp_path


def load(root, **settings):
    """Read a set and all of its images."""
    loaded = folder.load(folder="set", root=str(root), **settings)
    assert loaded.images.shape == (len(loaded), *loaded.shape)
    return loaded


def test_groups_in_natural_order_with_what_is_known(grouped):
    loaded = load(grouped, groups=("id", "ood"))
    assert loaded.images.shape == (15, 6, 5, 1) and loaded.images.dtype == np.float32
    np.testing.assert_allclose(loaded.images[:12, ..., 0], GREYS / 255, rtol=1e-6)
    np.testing.assert_allclose(loaded.images[12:, ..., 0], 1 - GREYS[:3] / 255, 1e-5)
    assert loaded.ids[9:13] == ("id_9", "id_10", "id_11", "ood_0")
    assert loaded.groups == ("id",) * 12 + ("ood",) * 3
    np.testing.assert_array_equal(loaded.masks[12:], GREYS[:3] > 127)
    np.testing.assert_array_equal(loaded.eligible[:12], GREYS > 99)
    # Nobody knows the body; where only some know a region, it is open to the others.
    assert loaded.body is None and loaded.regions == ("masks", "eligible")
    assert not loaded.masks[:12].any() and loaded.eligible[12:].all()
    assert loaded.patients == loaded.ids


def test_first_images_of_each_group(grouped):
    loaded = load(grouped, groups=("ood", "id"), per_group=2)
    assert loaded.ids == ("ood_0", "ood_1", "id_0", "id_1")
    assert len(loaded.masks) == 4


def test_a_plain_folder_is_of_unknown_group(tmp_path):
    for name in ("b10.png", "b9.PNG", ".hidden.png"):
        write(tmp_path / "set" / name, GREYS[0])
    (tmp_path / "set/notes.txt").write_text("not an image")
    with pytest.warns(UserWarning, match=r"left out notes\.txt \(\.png, \.jpg"):
        loaded = load(tmp_path)
    assert loaded.ids == ("b9", "b10") and loaded.groups == ("", "")
    assert loaded.masks is loaded.eligible is loaded.body is loaded.patients is None
    assert loaded.places[0].file == str(tmp_path / "set/b9.PNG")


def test_sixteen_bits_and_rgb(tmp_path):
    deep = RNG.integers(0, 65536, (2, 6, 5), dtype=np.uint16)
    colour = RNG.integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    for i in range(2):
        write(tmp_path / f"set/deep/{i}.png", deep[i])
        write(tmp_path / f"set/colour/{i}.png", colour[i])
    loaded = load(tmp_path, groups=("deep",), scale=65535.0)
    np.testing.assert_allclose(loaded.images[..., 0], deep / 65535, rtol=1e-6)
    loaded = load(tmp_path, groups=("colour",))
    np.testing.assert_allclose(loaded.images, colour / 255, rtol=1e-6)
    with pytest.raises(ValueError, match=r"data.offset and data.scale"):
        load(tmp_path, groups=("deep",))


def png(width, height, depth, colour, pixels=b""):
    """Write a PNG by hand: Pillow writes none that lies, and no 48-bit colour."""

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


@pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
def test_image_bombs_are_refused(tmp_path, side):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/bomb.png").write_bytes(png(side, side, 8, 0))
    with pytest.raises(ValueError, match=r"bomb\.png: not a whole PNG"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_a_truncated_file_is_named(grouped, keep):
    path = grouped / "set/id/7.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"id/7\.png: not a whole PNG"):
        load(grouped, groups=("id",))


def test_another_format_is_refused(grouped):
    Image.fromarray(GREYS[0]).save(grouped / "set/id/7.png", format="TIFF")
    with pytest.raises(ValueError, match=r"id/7\.png: not a whole PNG"):
        load(grouped, groups=("id",))


def test_the_first_image_of_another_size_is_named(grouped):
    write(grouped / "set/id/4.png", GREYS[0].T.copy())
    write(grouped / "set/id/5.png", GREYS[0].T.copy())
    with pytest.raises(ValueError, match=r"4\.png: 5x6 grey, but 0\.png is 6x5 grey"):
        load(grouped, groups=("id",))


def test_groups_of_different_sizes_are_refused(grouped):
    for i in range(3):
        write(grouped / f"set/wide/{i}.png", GREYS[i].T.copy())
    with pytest.raises(ValueError, match=r"differ in size: .* in 'wide', .* in 'ood'"):
        load(grouped, groups=("ood", "wide"))


def test_modes_that_would_be_cast_are_refused(grouped):
    path = grouped / "set/id/3.png"
    Image.fromarray(GREYS[0]).convert("P").save(path)
    with pytest.raises(ValueError, match=r"3\.png: a PNG of mode P"):
        load(grouped, groups=("id",))
    # Pillow opens 48-bit colour as 24-bit.
    path.write_bytes(png(5, 6, 16, 2, (b"\0" + bytes(5 * 6)) * 6))
    with pytest.raises(ValueError, match=r"3\.png: a PNG of mode RGB and 16 bits"):
        load(grouped, groups=("id",))


def test_masks_must_be_there_and_fit(grouped):
    write(grouped / "set/ood_masks/1.png", GREYS[0].T.copy())
    with pytest.raises(ValueError, match=r"ood_masks/1\.png: 5x6"):
        load(grouped, groups=("ood",))
    (grouped / "set/ood_masks/1.png").unlink()
    with pytest.raises(ValueError, match=r"ood_masks/1\.png: no such file"):
        load(grouped, groups=("ood",))
    for i in range(3):
        write(grouped / f"set/ood_masks/{i}.png", GREYS[i].T.copy())
    with pytest.raises(ValueError, match="masks of 5x6 grey for images of 6x5"):
        load(grouped, groups=("ood",))


def test_what_is_absent_is_named(grouped):
    with pytest.raises(
        FileNotFoundError, match=r"elsewhere: no such folder; .*KLIP_DA"
    ):
        folder.load(folder="elsewhere", root=str(grouped))
    with pytest.raises(ValueError, match=r"no group 'bad'; it has \['id', 'id_elig"):
        load(grouped, groups=("id", "bad"))
    with pytest.raises(ValueError, match=r"set: no pictures \(.*name sub-folders"):
        load(grouped)


def test_scale_must_be_positive(grouped):
    with pytest.raises(ValueError, match=r"data.scale=0"):
        load(grouped, groups=("id",), scale=0)


def test_depths_that_would_be_stretched_and_transparency_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    row = b"\0" + bytes(2)
    (tmp_path / "set/a.png").write_bytes(png(4, 6, 4, 0, row * 6))
    with pytest.raises(ValueError, match=r"a\.png: a PNG of mode L and 4 bits"):
        load(tmp_path)
    Image.fromarray(GREYS[0]).save(tmp_path / "set/a.png", transparency=3)
    with pytest.raises(ValueError, match=r"a\.png: .*without palette or transparency"):
        load(tmp_path)


def test_names_of_any_language(tmp_path):
    names = ("schädel (1)", "脑 2", "a.b.c")
    for name in names:
        write(tmp_path / f"set/{name}.png", GREYS[0])
    assert sorted(load(tmp_path).ids) == sorted(names)


def test_more_files_than_there_are_is_said(grouped):
    with pytest.raises(ValueError, match=r"per_group=5, but .*ood has 3 images"):
        load(grouped, groups=("ood",), per_group=5)
    with pytest.raises(ValueError, match="per_group=-1"):
        load(grouped, groups=("ood",), per_group=-1)


def test_files_are_read_when_asked_for(grouped):
    loaded = folder.load(folder="set", root=str(grouped), groups=("id", "ood"))
    path = grouped / "set/id/7.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    np.testing.assert_allclose(loaded.read([13]).images[0, ..., 0], 1 - GREYS[1] / 255)
    with pytest.raises(ValueError, match=r"id/7\.png: not a whole PNG"):
        loaded.digest()
    write(path, GREYS[7])
    digest = loaded.digest()
    write(path, GREYS[8])
    assert loaded.digest() != digest
