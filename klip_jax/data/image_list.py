"""Pictures that list files name, as OpenOOD's benchmarks are published.

A list has a line a picture, its path below a folder and its class, -1 for none:

    cifar10/test/airplane/0298.png 0

Each becomes RGB; its short side is resized to `resize` pixels, the other in proportion,
by Pillow's bilinear resizing; and the middle square of `crop` pixels is cut out. That
is OpenOOD's transform for tests, without its normalisation, which belongs to a network.

OpenOOD v1.5 with CIFAR-10, data below $KLIP_DATA as its download script lays them:

    data=dict(
        name="image_list.load",
        groups=dict(
            id=("benchmark_imglist/cifar10/test_cifar10.txt", "images_classic"),
            cifar100=("benchmark_imglist/cifar10/test_cifar100.txt", "images_classic"),
            tin=("benchmark_imglist/cifar10/test_tin.txt", "images_classic"),
            mnist=("benchmark_imglist/cifar10/test_mnist.txt", "images_classic"),
            svhn=("benchmark_imglist/cifar10/test_svhn.txt", "images_classic"),
            texture=("benchmark_imglist/cifar10/test_texture.txt", "images_classic"),
            places=("benchmark_imglist/cifar10/test_places365.txt", "images_classic"),
        ),
        resize=32,
        crop=32,
    )

cifar100 and tin are near, the others far. With ImageNet, resize=256, crop=224 and the
lists benchmark_imglist/imagenet/test_*.txt: imagenet, which is "id", ssb_hard and
ninco, which are near, inaturalist and openimage_o, all in images_largescale, and
textures, in images_classic.

Reference: Zhang et al., "OpenOOD v1.5: enhanced benchmark for out-of-distribution
detection", 2023, and its code (ImglistDataset, TestStandardPreProcessor). It lets
truncated files pass; here they are refused.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from klip_jax.data.base import Images, ImageSet, data_root
from klip_jax.data.base_join import join
from klip_jax.data.base_npz import labelled, spaced
from klip_jax.data.base_pillow import opened

_FORMATS = ("JPEG", "PNG")
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")


def load(
    *,
    groups: Mapping[str, Sequence[str]],
    root: str = "",
    per_group: int = 0,
    part: tuple[float, float] = (0.0, 1.0),
    resize: int = 32,
    crop: int = 32,
) -> ImageSet:
    """Read groups of pictures that list files name; each is decoded when asked for.

    Args:
      groups: {group: (list file, folder that its paths are in)}, "id" for
        in-distribution.
      root: folder of both; default $KLIP_DATA, else ../shared/data.
      per_group: so many pictures of each list, evenly spaced, as lists are often
        sorted by class; 0 for all.
      part: shares of each list, in its order, between which they are.
      resize: what the short side becomes, pixels; 0 leaves the pictures their size.
      crop: side of the middle square that is kept, pixels, at most `resize`.

    Returns:
      An `ImageSet` with images [N, crop, crop, 3] in [0, 1], called by their group and
      the number of their line; those of "id" are labelled as the list says.

    Raises:
      FileNotFoundError: if a list or a folder is absent.
      ValueError: if a line is not as above, its path leads out of the folder or to no
        file, or a list has fewer lines; when it is read, also if a picture is no whole
        JPEG or PNG, of more than 8 bits, smaller than `crop`, or larger than Pillow's
        limit against decompression bombs.
    """
    if crop < 1 or resize < 0 or 0 < resize < crop:
        raise ValueError(
            f"data.crop={crop}, data.resize={resize}: 1 <= crop <= resize, or resize=0"
        )
    parts = []
    for group, place in groups.items():
        if isinstance(place, str) or len(place) != 2:
            raise ValueError(
                f"data.groups.{group}: give (list file, folder), got {place!r}"
            )
        table, folder = (data_root(root) / name for name in place)
        _check_there(table, folder)
        names, labels = _read(table)
        index = spaced(len(names), per_group, part, str(table))
        files = [_file(table, i, folder, names[i]) for i in index]
        images = ImageSet(
            tuple(f"{group}_{i + 1:05d}" for i in index),
            (group,) * len(index),
            (crop, crop, 3),
            _reader(table, index, files, resize, crop),
        )
        known = labels if group == "id" else np.full(len(names), -1)
        parts.append(labelled(images, known, index))
    return join(parts)


def _check_there(table, folder):
    for path, there in ((table, table.is_file()), (folder, folder.is_dir())):
        if not there:
            raise FileNotFoundError(
                f"{path}: no such data; set --config.data.root or the environment "
                "variable KLIP_DATA to the folder that holds it"
            )


def _read(table):
    """Return the paths and labels of a list."""
    try:
        lines = table.read_text("utf-8").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: not a text of UTF-8 ({error})") from None
    names, labels = [], np.empty(len(lines), np.int64)
    for i, line in enumerate(lines):
        name, _, label = line.strip().rpartition(" ")
        try:
            labels[i] = int(label)
        except (ValueError, OverflowError):
            name = ""
        if not name.strip():
            raise ValueError(
                f"{table}, line {i + 1}: {line[:80]!r}: give a path, a space and a "
                "whole number, the class"
            )
        names.append(name.strip())
    return names, labels


def _file(table, i, folder, name):
    """Return the file of a path in a list, which stays inside the folder."""
    # Windows' rules know both slashes and drives, so they serve everywhere.
    path = pathlib.PureWindowsPath(name)
    if path.anchor or ".." in path.parts or "\0" in name:
        raise ValueError(
            f"{table}, line {i + 1}: the path {name!r} leads out of {folder}; give one "
            "inside it, without '..'"
        )
    file = folder / name
    if not file.is_file():
        raise ValueError(f"{table}, line {i + 1}: {file}: no such file")
    return file


def _reader(table, index, files, resize, crop):
    """Return what reads some of the files, which are of lines `index` of a list."""

    def reader(some):
        images = np.empty((len(some), crop, crop, 3), np.float32)
        for k, i in enumerate(some):
            where = f"{table}, line {index[i] + 1}: {files[i]}"
            with opened(files[i], where, _FORMATS) as image:
                if image.mode not in _MODES:
                    raise ValueError(f"mode {image.mode}; give one of 8 bits")
                images[k] = transformed(image.convert("RGB"), resize, crop)
        images /= 255
        return Images(images)

    return reader


def transformed(image: Image.Image, resize: int, crop: int) -> UInt8[np.ndarray, "..."]:
    """Return the middle [crop, crop, 3] of an RGB picture of another size.

    Args:
      image: RGB.
      resize: what its short side becomes; 0 for as it is.
      crop: side of the square.

    Raises:
      ValueError: if the picture is smaller than that.
    """
    width, height = image.size
    short = min(width, height)
    if resize and short != resize:
        size = resize * width // short, resize * height // short
        image = image.resize(size, Image.Resampling.BILINEAR)
        width, height = size
    if min(width, height) < crop:
        raise ValueError(
            f"{width}x{height} pixels, smaller than data.crop={crop}; give data.resize"
        )
    # Python's round, to the even, is what torchvision has.
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    return np.asarray(image.crop((left, top, left + crop, top + crop)))
