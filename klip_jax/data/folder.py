"""Image sets in folders of PNG files, grey or RGB, read by Pillow.

One sub-folder a group, `<group>/*.png`, with `<group>_masks/<same name>.png` and
likewise `<group>_eligible` and `<group>_body` where they are known.
Or one folder of images of which nothing is known. Grey values, up to 255 or in 16-bit
files up to 65535, become (grey - offset) / scale.
"""

import pathlib

import numpy as np

from klip_jax.data.base import Images, ImageSet, count_of, data_root, natural
from klip_jax.data.base_join import join
from klip_jax.data.base_pillow import opened
from klip_jax.data.transforms import Greys, mask_of

_MODES = ("L", "RGB", "I;16", "I;16B", "I")
_MASK_MODES = ("1", *_MODES)
_REGIONS = ("masks", "eligible", "body")


def load(
    *,
    folder: str,
    root: str = "",
    groups: tuple[str, ...] = (),
    per_group: int = 0,
    offset: float = 0.0,
    scale: float = 255.0,
    clip: bool = False,
    label: int = 0,
) -> ImageSet:
    """Read an image set; images come in natural order of their names (2 before 10).

    Args:
      folder: below `root`, or absolute.
      root: folder; default $KLIP_DATA, else ../shared/data.
      groups: sub-folders to read, "id" for in-distribution; empty reads the PNG files
        of `folder` itself as one group "", unknown.
      per_group: first so many images of each group; 0 for all.
      offset, scale, clip: grey values that become 0, and the range that becomes 1,
        65535 for the whole range of 16-bit files; see `transforms.Greys`.
      label: the value of the anomaly in masks that are labels; 0 where they are not.

    Returns:
      An `ImageSet` with images [N, H, W, C] in [0, 1]; files are read when asked for.

    Raises:
      FileNotFoundError: if the folder is absent.
      ValueError: if a group or a mask is absent, or a file's header says that it is no
        PNG, of another size or depth, or too large for Pillow's limit against
        decompression bombs; when it is read, also if it is truncated or pixels fall
        outside [0, 1].
    """
    path = data_root(root) / folder
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; set --config.data.root or the environment "
            "variable KLIP_DATA to the folder that holds it"
        )
    greys = Greys(offset, scale, clip)
    if not groups:
        files = _files(path, per_group)
        ids = tuple(file.stem for file in files)
        shape, reader = _check(files, _MODES), _reader(files, {}, greys, label)
        return ImageSet(ids, ("",) * len(ids), shape, reader)
    known = sorted(p.name for p in path.iterdir() if p.is_dir())
    if missing := [group for group in groups if group not in known]:
        raise ValueError(f"{path}: no group {missing[0]!r}; it has {known}")
    return join([_group(path / g, per_group, greys, label) for g in groups])


def _group(path, per_group, greys, label):
    files = _files(path, per_group)
    ids = tuple(f"{path.name}_{file.stem}" for file in files)
    shape, regions = _check(files, _MODES), {}
    for name in _REGIONS:
        place = path.with_name(f"{path.name}_{name}")
        if place.is_dir():
            regions[name] = [place / file.name for file in files]
            size = _check(regions[name], _MASK_MODES)
            if size[:2] != shape[:2]:
                raise ValueError(
                    f"{place}: masks of {_size(size)} for images of {_size(shape)}"
                )
    reader = _reader(files, regions, greys, label)
    return ImageSet(
        ids, (path.name,) * len(ids), shape, reader, tuple(regions), patients=ids
    )


def _reader(files, regions, greys, label):
    """Return what reads some of `files` and of the files of each region."""
    labels = {"masks": label}

    def image(file):
        pixels = _read(file)[None]
        greys.check(pixels, str(file))
        return greys.images(pixels)[0]

    def region(file, name):
        mask = mask_of(_read(file), labels.get(name, 0), str(file))
        return mask.any(-1) if mask.ndim == 3 else mask

    def reader(index):
        return Images(
            np.stack([image(files[i]) for i in index]),
            **{
                name: np.stack([region(own[i], name) for i in index])
                for name, own in regions.items()
            },
        )

    return reader


def _files(path: pathlib.Path, per_group: int) -> list[pathlib.Path]:
    files = [
        file
        for file in sorted(path.iterdir(), key=lambda file: natural(file.name))
        if file.suffix.lower() == ".png" and not file.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"{path}: no PNG files; name sub-folders with data.groups")
    return files[: count_of(per_group, len(files), str(path))]


def _check(files, modes):
    """Read the headers of `files`, which are alike; returns (H, W, C)."""
    shapes = []
    for file in files:
        with _opened(file) as image:
            shapes.append(_shape(image))
            mode, depth = image.mode, _depth(file)
            clear = "transparency" in image.info
        # Pillow would halve the depth of 16-bit colour; the header has the true one.
        odd = depth not in ((1, 8, 16) if "1" in modes else (8, 16))
        if mode not in modes or odd or clear or (mode == "RGB" and depth == 16):
            raise ValueError(
                f"{file}: a PNG of mode {mode} and {depth} bits; need 8- or 16-bit "
                "grey or 8-bit RGB, without palette or transparency"
            )
        if shapes[-1] != shapes[0]:
            raise ValueError(
                f"{file}: {_size(shapes[-1])}, but {files[0].name} is "
                f"{_size(shapes[0])}; all must be alike"
            )
    return shapes[0]


def _read(file):
    with _opened(file) as image:
        image.load()
        return np.asarray(image)


def _opened(file):
    if not file.is_file():
        raise ValueError(f"{file}: no such file, but there is an image of this name")
    return opened(file, file, ["PNG"])


def _depth(file):
    with file.open("rb") as stream:
        return stream.read(25)[24]


def _shape(image):
    width, height = image.size
    return height, width, 3 if image.mode == "RGB" else 1


def _size(shape):
    return f"{shape[0]}x{shape[1]} {'RGB' if shape[2] == 3 else 'grey'}"
