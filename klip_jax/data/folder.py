"""Image sets in folders of PNG files, grey or RGB, read by Pillow.

One sub-folder a group, `<group>/*.png`, with `<group>_masks/<same name>.png` and
likewise `<group>_eligible` and `<group>_body` where they are known: non-zero is True.
Or one folder of images of which nothing is known. Grey values, up to 255 or in 16-bit
files up to 65535, become (grey - offset) / scale.
"""

import pathlib
import warnings

import numpy as np
from PIL import Image

from klip_jax.data.base import ImageSet, data_root, join, natural, scaled

_MODES = ("L", "RGB", "I;16", "I;16B", "I")
_MASK_MODES = ("1", *_MODES)


def load(
    *,
    folder: str,
    root: str = "",
    groups: tuple[str, ...] = (),
    per_group: int = 0,
    offset: float = 0.0,
    scale: float = 255.0,
) -> ImageSet:
    """Read an image set; images come in natural order of their names (2 before 10).

    Args:
      folder: below `root`, or absolute.
      root: folder; default $KLIP_DATA, else ../shared/data.
      groups: sub-folders to read, "id" for in-distribution; empty reads the PNG files
        of `folder` itself as one group "", unknown.
      per_group: first so many images of each group; 0 for all.
      offset, scale: grey values that become 0, and the range that becomes 1; scale is
        65535 for the whole range of 16-bit files.

    Returns:
      An `ImageSet` with images [N, H, W, C] in [0, 1].

    Raises:
      FileNotFoundError: if the folder is absent.
      ValueError: if a group or a mask is absent, a file is truncated, no PNG, or too
        large for Pillow's limit against decompression bombs, sizes differ, or pixels
        fall outside [0, 1].
    """
    path = data_root(root) / folder
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; set --config.data.root or the environment "
            "variable KLIP_DATA to the folder that holds it"
        )
    if not groups:
        files = _files(path, per_group)
        images = scaled(_stack(files, _MODES), offset, scale, str(path))
        ids = tuple(file.stem for file in files)
        return ImageSet(images, ids, ("",) * len(ids))
    known = sorted(p.name for p in path.iterdir() if p.is_dir())
    if missing := [group for group in groups if group not in known]:
        raise ValueError(f"{path}: no group {missing[0]!r}; it has {known}")
    return join([_group(path / g, per_group, offset, scale) for g in groups])


def _group(path, per_group, offset, scale):
    files = _files(path, per_group)
    images = scaled(_stack(files, _MODES), offset, scale, str(path))
    ids = tuple(f"{path.name}_{file.stem}" for file in files)

    def regions(name):
        place = path.with_name(f"{path.name}_{name}")
        if not place.is_dir():
            return np.zeros(images.shape[:3], bool)
        found = _stack([place / file.name for file in files], _MASK_MODES) > 0
        found = found.any(-1) if found.ndim == 4 else found
        if found.shape != images.shape[:3]:
            raise ValueError(
                f"{place}: masks of {_size(found[0])} for images of {_size(images[0])}"
            )
        return found

    pixels = map(regions, ("masks", "eligible", "body"))
    return ImageSet(images, ids, (path.name,) * len(ids), *pixels, ids)


def _files(path: pathlib.Path, first: int) -> list[pathlib.Path]:
    files = [
        file
        for file in sorted(path.iterdir(), key=lambda file: natural(file.name))
        if file.suffix.lower() == ".png" and not file.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"{path}: no PNG files; name sub-folders with data.groups")
    return files[: first or None]


def _stack(files, modes):
    """Read `files` to one array [N, H, W] or [N, H, W, 3]."""
    images = []
    for file in files:
        images.append(_read(file, modes))
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"{file}: {_size(images[-1])}, but {files[0].name} is "
                f"{_size(images[0])}; all must be alike"
            )
    return np.stack(images)


def _read(file, modes):
    if not file.is_file():
        raise ValueError(f"{file}: no such file, but there is an image of this name")
    try:
        with warnings.catch_warnings():
            # Pillow only warns between its limit and twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=["PNG"]) as image:
                image.load()
                mode, pixels = image.mode, np.asarray(image)
    except (
        *(OSError, ValueError, SyntaxError, EOFError),
        *(Image.DecompressionBombWarning, Image.DecompressionBombError),
    ) as error:
        raise ValueError(f"{file}: not a whole PNG image ({error})") from None
    # Pillow would halve the depth of 16-bit colour; the header has the true one.
    if mode not in modes or (mode == "RGB" and _depth(file) == 16):
        raise ValueError(
            f"{file}: a PNG of mode {mode} and {_depth(file)} bits; need 8- or 16-bit "
            "grey or 8-bit RGB, without palette or transparency"
        )
    return pixels


def _depth(file):
    with file.open("rb") as stream:
        return stream.read(25)[24]


def _size(image):
    kind = "RGB" if image.shape[2:] == (3,) else "grey"
    return f"{image.shape[0]}x{image.shape[1]} {kind}"
