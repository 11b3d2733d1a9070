"""Formats besides PNG, MVTec's and anomalib's layouts, and depths that do not fit."""

import numpy as np
import pytest
from PIL import Image

from klip_jax.data import anomalib, folder, mvtec

RNG = np.random.default_rng(0)
GREYS = RNG.integers(0, 256, (4, 6, 5), dtype=np.uint8)


def write(path, pixels, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **settings)


def load(path, **settings):
    return folder.load(folder=str(path), **settings)


def test_lossless_formats_are_one(tmp_path):
    for i, ending in enumerate(("png", "tif", "BMP", "tiff")):
        write(tmp_path / f"{i}.{ending}", GREYS[i])
    loaded = load(tmp_path)
    assert loaded.ids == ("0", "1", "2", "3")
    np.testing.assert_allclose(loaded.images[..., 0] * 255, GREYS, atol=1e-4)


def test_jpeg_and_files_of_one_stem(tmp_path):
    write(tmp_path / "a.jpg", GREYS[0], quality=95)
    write(tmp_path / "a.png", GREYS[0])
    loaded = load(tmp_path)
    assert loaded.ids == ("a.jpg", "a.png")
    jpeg = np.asarray(Image.open(tmp_path / "a.jpg"))
    np.testing.assert_allclose(loaded.images[0, ..., 0] * 255, jpeg, atol=1e-4)


def test_a_photograph_is_turned_as_it_says(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6  # the top of what is stored is the right side
    write(tmp_path / "a.png", GREYS[0], exif=tags)
    loaded = load(tmp_path)
    assert loaded.shape == (5, 6, 1)
    turned = np.rot90(GREYS[0], -1)
    np.testing.assert_allclose(loaded.images[0, ..., 0] * 255, turned, atol=1e-4)
    write(tmp_path / "a.tif", GREYS[0], exif=tags)
    with pytest.raises(ValueError, match=r"a\.tif: is stored turned \(orientation 6"):
        load(tmp_path / "a.tif")


def test_floats_and_one_picture(tmp_path):
    floats = RNG.uniform(size=(6, 5)).astype(np.float32)
    write(tmp_path / "a.tif", floats)
    loaded = load(tmp_path / "a.tif", scale=1.0)
    np.testing.assert_allclose(loaded.images[0, ..., 0], floats, atol=1e-7)
    (tmp_path / "a.gif").write_bytes(b"GIF")
    with pytest.raises(ValueError, match=r"a\.gif: no picture; \.png, \.jpg"):
        load(tmp_path / "a.gif")


def test_pages_and_colours_that_would_be_cast(tmp_path):
    page = Image.fromarray(GREYS[0])
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(ValueError, match=r"a\.tif: 2 pages; save one image a file"):
        load(tmp_path)
    (tmp_path / "a.tif").unlink()
    page.convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg: a JPEG of mode CMYK"):
        load(tmp_path)


def test_depths_are_not_mixed_nor_guessed(tmp_path):
    deep = np.uint16(GREYS[0]) * 16
    write(tmp_path / "0.png", deep)
    words = r"greys up to \d+, which data\.scale=65535 .* want data\.scale=4095"
    with pytest.raises(ValueError, match=words):
        load(tmp_path, scale=65535.0)
    loaded = load(tmp_path, scale=4095.0)
    np.testing.assert_allclose(loaded.images[0, ..., 0], deep / 4095, atol=1e-6)
    write(tmp_path / "1.png", GREYS[1])
    words = r"1\.png: 6x5 grey, but 0\.png is 6x5 grey of 16 bits; all must be alike"
    with pytest.raises(ValueError, match=words):
        load(tmp_path, scale=4095.0)


@pytest.fixture
def bottle(tmp_path):
    """A category of MVTec AD."""
    top = tmp_path / "bottle"
    write(top / "train/good/000.png", GREYS[0])
    for name in ("good", "broken_large", "contamination"):
        for i in range(2):
            write(top / f"test/{name}/{i:03d}.png", GREYS[i])
            if name != "good":
                mask = 255 * np.uint8(GREYS[i] > 200)
                write(top / f"ground_truth/{name}/{i:03d}_mask.png", mask)
    return top


def test_the_layout_of_mvtec(bottle):
    train = mvtec.load(folder=str(bottle), split="train")
    assert train.ids == ("good_000",) and train.groups == ("id",)
    assert train.masks is None
    test = mvtec.load(folder=str(bottle))
    assert test.groups == ("broken_large",) * 2 + ("contamination",) * 2 + ("id",) * 2
    np.testing.assert_array_equal(test.masks[:2], GREYS[:2] > 200)
    assert not test.masks[4:].any()
    some = mvtec.load(folder=str(bottle), groups=("good",), per_group=1)
    assert some.ids == ("good_000",)
    with pytest.raises(ValueError, match=r"no group 'x'; it has \['broken_large'"):
        mvtec.load(folder=str(bottle), groups=("x",))
    with pytest.raises(FileNotFoundError, match="give the category with data"):
        mvtec.load(folder=str(bottle.parent))
    (bottle / "ground_truth/contamination/001_mask.png").unlink()
    with pytest.raises(ValueError, match=r"contamination/001\.png: no such file"):
        mvtec.load(folder=str(bottle))


def test_the_layout_of_anomalib(bottle):
    settings = dict(folder=str(bottle), normal="test/good")
    settings |= dict(abnormal=("test/contamination",))
    loaded = anomalib.load(**settings, masks=("ground_truth/contamination",))
    assert loaded.groups == ("id", "id", "contamination", "contamination")
    assert loaded.ids[2] == "contamination_000"
    np.testing.assert_array_equal(loaded.masks[2:], GREYS[:2] > 200)
    assert anomalib.load(**settings).masks is None
    with pytest.raises(ValueError, match="give one folder for each"):
        anomalib.load(**settings, masks=("a", "b"))
    with pytest.raises(ValueError, match=r"'\.\./x': leads out of"):
        anomalib.load(folder=str(bottle), normal="../x")
    with pytest.raises(FileNotFoundError, match="bottle/x: no such folder"):
        anomalib.load(folder=str(bottle), normal="x")
