"""Pictures of different files, 32x32 RGB, all through one resizing and one codec.

    x' = J(R(C(x)))

C repeats a grey picture in three colours; R is Pillow's bilinear resizing to a square,
whose kernel widens where it shrinks; J encodes as JPEG of one quality with 4:2:0, that
is, colours at half the resolution, and decodes. Files of images differ in how they were
stored as well as in what they show, and a detector that finds the codec looks as good
as one that finds the content; so all groups end with the same J, and those that were
JPEG already, or have the right size, go the same way as the others.

The default is what our copies of CIFAR-10 are: each of the 60,000 is JPEG with the
quantisation tables that libjpeg has for quality 75, and 4:2:0. So J leaves 92 % of the
numbers of its test images as they are; of Tiny-ImageNet and DTD it changes 93 %, by 6
and 7 of 255 on average. What is left of a file: 28 pixels stretched to 32 are smooth, a
grey picture has no colour, and classes that two data sets share (Tiny-ImageNet has cats
too) are not taken out. Numbers do not compare with those that others publish for these
sets.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from klip_jax.data.base import Images, ImageSet
from klip_jax.data.base_join import join
from klip_jax.data.base_npz import (
    array_shapes,
    labelled,
    labels_of,
    path_of,
    read_arrays,
    spaced,
)
from klip_jax.data.base_pillow import opened

_MODES = ("L", "RGB")
_HALF_COLOURS = 2  # Pillow's number for 4:2:0


def load(
    *,
    groups: Mapping[str, str | Sequence[str]],
    root: str = "",
    per_group: int = 0,
    part: tuple[float, float] = (0.0, 1.0),
    side: int = 32,
    quality: int = 75,
) -> ImageSet:
    """Read groups of pictures that lie in .npz files; JPEG is decoded when asked for.

    A file holds arrays of uint8 [N, H, W] or [N, H, W, 3], or JPEG files: all their
    bytes one after another in `jpeg`, where each begins and the last ends in
    `offsets` [N + 1], and "L" or "RGB" in `mode`. Pictures are square.

    Args:
      groups: {group: file} or {group: (file, name of its array)}, "id" for
        in-distribution; without a name it is `jpeg`, or `images` where there is none.
      root: folder; default $KLIP_DATA, else ../shared/data.
      per_group: so many images of each, evenly spaced, because files are often sorted
        by class; 0 for all.
      part: shares of each file, in its order, between which they are.
      side: of the images that are returned, pixels, at least 1.
      quality: of the JPEG that all pass last, 1 to 100; 0 for none, so that pictures of
        the right size are as their file has them.

    Returns:
      An `ImageSet` with images [N, side, side, 3] in [0, 1], with the labels of "id"
      where its file has them: `labels`, or as the array with "labels" for "images".

    Raises:
      FileNotFoundError: if a file is absent.
      ValueError: if one is truncated, lacks an array, has fewer images, or others than
        bytes; when it is read, also if a JPEG file is broken, of another mode, not
        square, or declares more pixels than Pillow's limit against decompression bombs.
    """
    if side < 1:
        raise ValueError(f"data.side={side}: the side of the images, at least 1 pixel")
    if not 0 <= quality <= 100:
        raise ValueError(f"data.quality={quality}: JPEG has 1 to 100; 0 for none")
    parts = []
    for group, place in groups.items():
        file, *names = (place,) if isinstance(place, str) else place
        if len(names) > 1:
            raise ValueError(
                f"data.groups.{group}: give a file or (file, array), got {place}"
            )
        path = path_of(root, file)
        shapes = array_shapes(path)
        name = names[0] if names else "jpeg" if "jpeg" in shapes else "images"
        count, picture = (_jpegs if name == "jpeg" else _arrays)(path, shapes, name)
        index = spaced(count, per_group, part, f"{path}, {name}")
        beside = "labels" if name == "jpeg" else name.replace("images", "labels")
        labels = labels_of(path, shapes, beside, group, count)
        images = ImageSet(
            tuple(f"{group}_{i:05d}" for i in index),
            (group,) * len(index),
            (side, side, 3),
            _reader(picture, index, side, quality),
        )
        parts.append(labelled(images, labels, index))
    return join(parts)


def _reader(picture, index, side, quality):
    """Return what reads some of the pictures at `index` of a file, as numbers."""

    def reader(some):
        images = np.empty((len(some), side, side, 3), np.float32)
        for k, i in enumerate(index[some]):
            x = picture(i).convert("RGB")
            if x.size != (side, side):
                x = x.resize((side, side), Image.Resampling.BILINEAR)
            images[k] = x if quality == 0 else _coded(x, quality)
        images /= 255
        return Images(images)

    return reader


def _coded(x, quality):
    with io.BytesIO() as file:
        x.save(file, "JPEG", quality=quality, subsampling=_HALF_COLOURS)
        with Image.open(file, formats=["JPEG"]) as decoded:
            return np.asarray(decoded)


def _arrays(path, shapes, name):
    """Return how many pictures an array holds, and what gives the i-th."""
    if name not in shapes:
        raise ValueError(f"{path}: no array {name!r}; it has {sorted(shapes)}")
    shape = shapes[name]
    colours = shape[3:] in ((), (1,), (3,))
    if len(shape) < 3 or not colours or shape[1] != shape[2] or 0 in shape[1:]:
        raise ValueError(
            f"{path}: {name} is {shape}; pictures are [N, side, side] or "
            "[N, side, side, 3]"
        )
    images = read_arrays(path, [name])[name]
    if images.dtype != np.uint8:
        raise ValueError(
            f"{path}: {name} is {images.dtype}, but a codec is for uint8; read it with "
            "npz.load_arrays"
        )
    if shape[3:] == (1,):
        images = images[..., 0]
    return shape[0], lambda i: Image.fromarray(images[i])


def _jpegs(path, shapes, name):
    """Return how many JPEG files there are, and what decodes the i-th."""
    arrays = read_arrays(path, [name, "offsets", "mode"])
    data, ends, mode = arrays[name], arrays["offsets"], str(arrays["mode"])
    if data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError(f"{path}: {name} is {data.dtype} {data.shape}, not bytes")
    right = ends.dtype.kind in "iu" and ends.ndim == 1 and len(ends) > 0
    if right:
        ends = ends.astype(np.int64)
        right = ends[0] >= 0 and ends[-1] <= len(data) and (np.diff(ends) > 0).all()
    if not right:
        raise ValueError(
            f"{path}: offsets do not rise from 0 to the {len(data)} bytes of {name}"
        )
    if mode not in _MODES:
        raise ValueError(f"{path}: mode {mode!r}; pictures are of mode L or RGB")

    def picture(i):
        file = data[ends[i] : ends[i + 1]].tobytes()
        with opened(file, f"{path}, image {i}", ["JPEG"]) as image:
            width, height = image.size
            if image.mode not in _MODES or width != height:
                raise ValueError(
                    f"{width}x{height} of mode {image.mode}; pictures are square and "
                    "grey or RGB"
                )
            return image.convert(mode)

    return len(ends) - 1, picture
