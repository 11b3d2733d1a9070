"""List files in OpenOOD's layout, tiny: what is read, and what is refused."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from klip_jax.data import image_list
from klip_jax.data.image_list import transformed

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """Make a benchmark of 32x32 PNG and of larger JPEG files."""
    own, far = [], []
    for i in range(6):
        name = f"cifar10/test/{'airplane' if i < 3 else 'bird'}/{i:04}.png"
        save(tmp_path / "images_classic" / name, (32, 32))
        own.append(f"{name} {0 if i < 3 else 2}")
        name = f"texture/{i} x.jpg"  # OpenOOD's own reader takes no spaces
        save(tmp_path / "images_classic" / name, (50 + i, 40), "L" if i == 1 else "RGB")
        far.append(f"{name} -1")
    lists = tmp_path / "benchmark_imglist" / "cifar10"
    lists.mkdir(parents=True)
    (lists / "test_cifar10.txt").write_text("\n".join(own) + "\n")
    (lists / "test_texture.txt").write_text("\r\n".join(far))
    return tmp_path


def save(path, size, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
    Image.fromarray(RNG.integers(0, 256, shape, np.uint8)).save(path)


GROUPS = dict(
    id=("benchmark_imglist/cifar10/test_cifar10.txt", "images_classic"),
    texture=("benchmark_imglist/cifar10/test_texture.txt", "images_classic"),
)


def load(folder, **settings):
    return image_list.load(**dict(groups=GROUPS, root=str(folder)) | settings)


def rewrite(folder, text):
    path = folder / GROUPS["id"][0]
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_pictures_of_lists(folder):
    images = load(folder, per_group=2)
    assert images.ids == ("id_00001", "id_00006", "texture_00001", "texture_00006")
    assert images.groups == ("id",) * 2 + ("texture",) * 2
    assert images.labels == (0, 2, -1, -1) and images.shape == (32, 32, 3)
    x = images.images
    assert x.shape == (4, 32, 32, 3) and x.dtype == np.float32
    path = folder / "images_classic/cifar10/test/bird/0005.png"
    np.testing.assert_array_equal(np.round(255 * x[1]), np.asarray(Image.open(path)))
    texture = Image.open(folder / "images_classic/texture/5 x.jpg")
    # 55x40 becomes 44x32, of which columns 6 to 37 are kept.
    middle = np.asarray(texture.resize((44, 32), Image.Resampling.BILINEAR))[:, 6:38]
    np.testing.assert_array_equal(np.round(255 * x[3]), middle)
    grey = load(folder).read([7]).images[0]
    assert (grey == grey[..., :1]).all()
    assert load(folder, part=(0.5, 1)).ids[:3] == ("id_00004", "id_00005", "id_00006")


@pytest.mark.parametrize(
    ("size", "resize", "crop", "middle"),
    [
        # torchvision: int(256 * 500 / 375) = 341, round((341 - 224) / 2) = 58.
        ((500, 375), 256, 224, (341, 256, 58, 16)),
        ((375, 500), 256, 224, (256, 341, 16, 58)),
        ((33, 32), 32, 32, (33, 32, 0, 0)),  # round(.5) is 0
        ((35, 32), 32, 32, (35, 32, 2, 0)),  # and round(1.5) is 2
        ((48, 64), 0, 32, (48, 64, 8, 16)),
    ],
)
def test_the_transform_is_that_of_openood(size, resize, crop, middle):
    x = Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3), np.uint8))
    width, height, left, top = middle
    expected = x.resize((width, height), Image.Resampling.BILINEAR)
    expected = np.asarray(expected)[top : top + crop, left : left + crop]
    np.testing.assert_array_equal(transformed(x, resize, crop), expected)


def test_nothing_is_decoded_before_it_is_asked_for(folder):
    path = folder / "images_classic/cifar10/test/bird/0003.png"
    path.write_bytes(path.read_bytes()[:900])
    images = load(folder)
    assert images.read([2, 4]).images.shape == (2, 32, 32, 3)
    words = r"test_cifar10\.txt, line 4: .*0003\.png: not a whole JPEG or PNG image"
    with pytest.raises(ValueError, match=words):
        images.read([3])


@pytest.mark.parametrize(
    "name",
    [
        *("../secret.png", "cifar10/../../secret.png", "/etc/secret.png", "a\0.png"),
        *("C:/secret.png", "\\secret.png", "..\\secret.png"),
    ],
)
def test_paths_stay_inside(folder, name):
    save(folder / "secret.png", (32, 32))
    path = rewrite(folder, f"cifar10/test/bird/0003.png 2\n{name} 0\n")
    words = rf"{path.name}, line 2: the path .* leads out of .*images_classic; give"
    with pytest.raises(ValueError, match=words):
        load(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cifar10/test/bird/9.png 2", r"line 1: .*9\.png: no such file"),
        ("cifar10/test/bird 2", r"line 1: .*bird: no such file"),
        ("cifar10/test/bird/0003.png", "line 1: .*: give a path, a space and a whole"),
        ("cifar10/test/bird/0003.png 2\n\nx.png 1", "line 2: '': give a path"),
        ("a.png {'label': 3}", r"line 1: .*give a path"),
        ("a.png 1.5", r"line 1: .*give a path"),
        (f"a.png {10**30}", r"line 1: .*give a path"),
        (" 3", r"line 1: .*give a path"),
        ("", "line 1: '': give a path"),
        (b"\xff\xfe\x00", "not a text of UTF-8"),
    ],
)
def test_lines_that_are_wrong(folder, text, words):
    path = rewrite(folder, text)
    with pytest.raises(ValueError, match=rf"{path.name}(, |: ){words}"):
        load(folder)


def test_pictures_that_do_not_fit(folder):
    bird = folder / "images_classic/cifar10/test/bird/0003.png"
    words = r"line 4: .*32x32 pixels, smaller than data\.crop=33; give data\.resize"
    with pytest.raises(ValueError, match=words):
        load(folder, resize=0, crop=33).read([3])
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(bird)
    with pytest.raises(ValueError, match=r"line 4: .*mode I;16; give one of 8 bits"):
        load(folder).read([3])
    Image.new("RGB", (32, 32)).save(bird, "BMP")
    with pytest.raises(ValueError, match=r"line 4: .*not a whole JPEG or PNG"):
        load(folder).read([3])
    file = io.BytesIO()
    Image.new("L", (32, 32)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = np.array([60000, 60000], ">u4").tobytes()
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    bird.write_bytes(data)
    with pytest.raises(ValueError, match=r"line 4: .*decompression bomb"):
        load(folder).read([3])


def test_settings_that_cannot_work(folder):
    bad = [
        (dict(crop=0), r"data\.crop=0, data\.resize=32: 1 <= crop <= resize"),
        (dict(resize=20), r"data\.crop=32, data\.resize=20"),
        (dict(groups=dict(id="list.txt")), r"groups\.id: give \(list file, folder\)"),
        (dict(groups={}), r"data\.groups is empty"),
        (dict(per_group=7), r"per_group=7, but .*test_cifar10\.txt has 6 images"),
    ]
    for settings, words in bad:
        with pytest.raises(ValueError, match=words):
            load(folder, **settings)
    for place in (("absent.txt", "images_classic"), (GROUPS["id"][0], "absent")):
        with pytest.raises(FileNotFoundError, match=r"absent.*no such data; set --c"):
            load(folder, groups=dict(id=place))
