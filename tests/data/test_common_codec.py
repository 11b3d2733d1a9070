"""One resizing and one codec for all, and what is refused before it is decoded."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from klip_jax.data import common_codec

RNG = np.random.default_rng(0)
GRID = np.arange(32) / 32
SMOOTH = np.stack(
    [
        127 + 90 * np.sin(5 * GRID[:, None] + k) * np.cos(4 * GRID - k + c)
        for k in range(6)
        for c in range(3)
    ]
)
SMOOTH = np.uint8(SMOOTH.reshape(6, 3, 32, 32).transpose(0, 2, 3, 1))


def jpeg(image, **settings):
    file = io.BytesIO()
    settings = dict(quality=75, subsampling=2) | settings
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        file, "JPEG", **settings
    )
    return file.getvalue()


def decoded(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def write(path, files, **others):
    arrays = dict(
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        mode=np.array("RGB"),
    )
    np.savez(path, **arrays | others)
    return path


@pytest.fixture
def folder(tmp_path):
    files = [jpeg(image) for image in SMOOTH]
    write(tmp_path / "own.npz", files, labels=np.uint8([3, 0, 1, 2, 9, 9]))
    np.savez(tmp_path / "raw.npz", images=SMOOTH, labels=np.arange(6))
    digits = RNG.integers(0, 256, (6, 28, 28), np.uint8)
    np.savez(tmp_path / "grey.npz", test_images=digits, test_labels=np.arange(6))
    return tmp_path


GROUPS = dict(id="own.npz", raw="raw.npz", grey=("grey.npz", "test_images"))


def load(root, groups=None, **settings):
    return common_codec.load(
        groups=GROUPS if groups is None else groups, root=str(root), **settings
    )


def test_all_come_through_the_same_codec(folder):
    images = load(folder, per_group=3)
    assert images.shape == (32, 32, 3) and images.groups[::3] == ("id", "raw", "grey")
    assert images.labels == (3, 1, 9) + (-1,) * 6
    assert images.ids[:3] == ("id_00000", "id_00002", "id_00005")
    x = np.round(255 * images.images).astype(np.uint8)
    np.testing.assert_array_equal(x[3], decoded(jpeg(SMOOTH[0])))
    # What was JPEG already is encoded once more.
    np.testing.assert_array_equal(x[1], decoded(jpeg(decoded(jpeg(SMOOTH[2])))))
    with np.load(folder / "grey.npz") as archive:
        digit = Image.fromarray(archive["test_images"][5]).convert("RGB")
    digit = digit.resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(x[8], decoded(jpeg(digit)))
    assert (x[6:] == x[6:, ..., :1]).all()


def test_quality_decides_and_none_leaves_the_file(folder):
    raw = load(folder, dict(id="raw.npz"), quality=0)
    np.testing.assert_array_equal(np.round(255 * raw.images), SMOOTH)
    assert raw.labels == tuple(range(6)) and raw.images.dtype == np.float32
    own = load(folder, dict(id="own.npz"), quality=0)
    expected = [decoded(jpeg(image)) for image in SMOOTH]
    np.testing.assert_array_equal(np.round(255 * own.images), expected)
    coarse = load(folder, dict(id="raw.npz"), quality=10)
    expected = [decoded(jpeg(image, quality=10)) for image in SMOOTH]
    np.testing.assert_array_equal(np.round(255 * coarse.images), expected)
    half = load(folder, dict(id="raw.npz"), quality=0, side=16)
    squares = SMOOTH.reshape(6, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.abs(255 * half.images - squares).max() < 6


def test_a_part_of_a_file(folder):
    first = load(folder, dict(id="own.npz"), part=(0, 0.5))
    last = load(folder, dict(id="own.npz"), part=(0.5, 1.0), per_group=2)
    assert first.labels == (3, 0, 1) and last.labels == (2, 9)
    assert last.ids == ("id_00003", "id_00005")
    for part in ((0.5, 0.5), (-0.1, 1), (0, 1.1)):
        with pytest.raises(ValueError, match=r"data\.part=.*give shares"):
            load(folder, dict(id="own.npz"), part=part)
    with pytest.raises(ValueError, match=r"per_group=4, but part of .* has 3 images"):
        load(folder, dict(id="own.npz"), part=(0, 0.5), per_group=4)
    with pytest.raises(ValueError, match=r"part=\(0, 0\.01\) of .* has no image"):
        load(folder, dict(id="own.npz"), part=(0, 0.01))


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path):
    files = [jpeg(SMOOTH[0]), b"no JPEG", jpeg(SMOOTH[1])[:300]]
    write(tmp_path / "own.npz", files)
    images = load(tmp_path, dict(id="own.npz"))
    assert images.labels is None and images.read([0]).images.shape == (1, 32, 32, 3)
    for i in (1, 2):
        with pytest.raises(ValueError, match=rf"own\.npz, image {i}: not a whole JPEG"):
            images.read([i])


def declared(width, height):
    """Return a JPEG whose header says another size than it has."""
    data = jpeg(SMOOTH[0])
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (declared(65000, 65000), "decompression bomb"),
        (declared(10000, 10000), "decompression bomb"),  # Pillow would only warn
        (declared(32, 31), "32x31 of mode RGB; pictures are square"),
        (jpeg(Image.new("CMYK", (32, 32))), "32x32 of mode CMYK"),
    ],
    ids=["bomb", "large", "long", "cmyk"],
)
def test_headers_are_checked_first(tmp_path, data, words):
    write(tmp_path / "own.npz", [data])
    with pytest.raises(ValueError, match=words):
        load(tmp_path, dict(id="own.npz")).read([0])


WRONG = {
    "mode": (dict(mode=np.array("CMYK")), "mode 'CMYK'; pictures are of mode L or RGB"),
    "falling": (dict(offsets=np.array([0, 50, 20])), "offsets do not rise"),
    "beyond": (dict(offsets=np.array([0, 10**6])), "offsets do not rise from 0 to the"),
    "no numbers": (dict(offsets=np.array([0.0, 5.0])), "offsets do not rise"),
    "no bytes": (dict(jpeg=np.zeros((2, 2))), r"jpeg is float64 \(2, 2\), not bytes"),
    "labels": (dict(labels=np.arange(3)), "3 numbers in 'labels' for 1 images"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_of_jpeg_that_are_wrong(tmp_path, case):
    changes, words = WRONG[case]
    write(tmp_path / "own.npz", [jpeg(SMOOTH[0])], **changes)
    with pytest.raises(ValueError, match=rf"own\.npz: .*{words}"):
        load(tmp_path, dict(id="own.npz"))


def test_settings_that_cannot_work(folder):
    np.savez(folder / "f.npz", images=SMOOTH / 255.0)
    np.savez(folder / "w.npz", images=SMOOTH[:, :20])
    bad = [
        (dict(side=0), r"data\.side=0"),
        (dict(quality=101), r"data\.quality=101: JPEG has 1 to 100"),
        (dict(quality=-1), r"data\.quality=-1"),
        (dict(groups=dict(id=("raw.npz", "a", "b"))), r"groups\.id: give a file or"),
        (dict(groups=dict(id=("raw.npz", "y"))), r"raw\.npz: no array 'y'; it has"),
        (dict(groups=dict(id="f.npz")), "images is float64, but a codec is for uint8"),
        (dict(groups=dict(id="w.npz")), r"images is \(6, 20, 32, 3\); pictures are"),
        (dict(groups=dict(id="grey.npz")), "no array 'images'; it has"),
        (dict(groups={}), r"data\.groups is empty"),
        (dict(per_group=7), r"per_group=7, but .*own\.npz, jpeg has 6 images"),
    ]
    for settings, words in bad:
        with pytest.raises(ValueError, match=words):
            load(folder, **settings)
    with pytest.raises(FileNotFoundError, match=r"absent\.npz: no such data"):
        load(folder, dict(id="absent.npz"))


def test_the_real_files(shared_data):
    groups = dict(
        id="cifar10_test.npz",
        tiny_imagenet="tinyimagenet_val_64.npz",
        dtd="dtd10_32.npz",
        mnist=("mnist_28.npz", "test_images"),
    )
    images = load(shared_data / "data", groups, per_group=4)
    assert images.images.shape == (16, 32, 32, 3)
    assert set(images.labels[4:]) == {-1} and min(images.labels[:4]) >= 0
    x = images.images
    assert x.min() >= 0 and x.max() <= 1 and np.ptp(x, (1, 2, 3)).min() > 0.2


def test_the_default_is_the_codec_of_the_copies_of_cifar10(shared_data):
    expected = Image.open(io.BytesIO(jpeg(SMOOTH[0]))).quantization
    with np.load(shared_data / "data" / "cifar10_test.npz") as archive:
        ends, data = archive["offsets"], archive["jpeg"].tobytes()
    for i in range(0, len(ends) - 1, 500):
        image = Image.open(io.BytesIO(data[ends[i] : ends[i + 1]]))
        assert image.quantization == expected
        assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]
