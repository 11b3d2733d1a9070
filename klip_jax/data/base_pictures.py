"""Pictures of PNG, JPEG, TIFF and BMP: their headers, and their pixels when asked for.

Grey of 8, 16 or 32 bits (these floats), or RGB of 8 bits; a photograph is turned as its
EXIF says. What would be cast in silence, palettes, transparency, CMYK, 48-bit colour,
several pages, is refused.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from klip_jax.data.base import Images, ImageSet, count_of, natural
from klip_jax.data.base_geometry import Place
from klip_jax.data.base_pillow import opened
from klip_jax.data.transforms import Greys, mask_of

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
"""What can be read, by the ending of its name."""
_MODES = ("L", "RGB", "I;16", "I;16B", "I", "F")
_MASK_MODES = ("1", *_MODES)
_ORIENTATION = 0x0112
_TURNED = 5  # this orientation and those above swap rows and columns
_NOISE = ("thumbs.db", "desktop.ini")
_SAMPLED = 3  # pictures of 16 bits whose depth is looked at
_TWELVE = 4095


def pictures(path: Path, per_group: int = 0) -> list[Path]:
    """Return the pictures of a folder in natural order of names (2 before 10).

    Other files are named in a warning, hidden ones are not.

    Args:
      path: a folder, or one picture.
      per_group: first so many; 0 for all.

    Raises:
      ValueError: if there are none, or fewer.
    """
    if path.is_file():
        if path.suffix.lower() not in FORMATS:
            raise ValueError(f"{path}: no picture; {_endings()} are read")
        return [path]
    visible = [p for p in path.iterdir() if not p.name.startswith(".")]
    visible.sort(key=lambda p: natural(p.name))
    files = [p for p in visible if p.suffix.lower() in FORMATS and p.is_file()]
    others = [p.name for p in visible if p.is_file() and p not in set(files)]
    others = [name for name in others if name.lower() not in _NOISE]
    if not files:
        inside = f", but {', '.join(others[:9])}" if others else ""
        raise ValueError(
            f"{path}: no pictures ({_endings()}){inside}; name sub-folders with "
            "data.groups"
        )
    if others:
        warnings.warn(
            f"{path}: left out {', '.join(others)} ({_endings()} are read)",
            stacklevel=4,
        )
    return files[: count_of(per_group, len(files), str(path))]


def picture_set(
    files: Sequence[Path],
    group: str,
    greys: Greys,
    *,
    prefix: str = "",
    regions: Mapping[str, Sequence[Path]] | None = None,
    label: int = 0,
    patients: bool = False,
) -> ImageSet:
    """Return the set of pictures that are alike; headers are read, pixels are not.

    Args:
      files: the pictures.
      group: of all of them.
      greys: what becomes 0 and 1.
      prefix: of their names in the set.
      regions: {"masks", "eligible", "body": a picture for each}.
      label: the value of the anomaly in masks that are labels; 0 where they are not.
      patients: whether each is a patient of its own.

    Raises:
      ValueError: if a header is broken, or says another size, colour or depth.
    """
    shape, known = _check(files, _MODES), dict(regions or {})
    _check_depth(files, greys)
    for own in known.values():
        size = _check(own, _MASK_MODES)
        if size[:2] != shape[:2]:
            raise ValueError(
                f"{own[0].parent}: masks of {_size(size)} for images of {_size(shape)}"
            )
    stems = [file.stem for file in files]
    names = stems if len(set(stems)) == len(stems) else [file.name for file in files]
    ids = tuple(prefix + name for name in names)
    return ImageSet(
        ids,
        (group,) * len(ids),
        shape[:3],
        _reader(files, known, greys, label),
        tuple(known),
        patients=ids if patients else None,
        places=tuple(Place(str(file.absolute())) for file in files),
    )


def named_like(place: Path, file: Path) -> Path:
    """Return the mask of a picture in a folder: of its name, or that and `_mask`.

    It may end otherwise, as JPEG would blur it; if there is none, where it should be.
    """
    endings = dict.fromkeys((file.suffix, *FORMATS))
    ways = [place / f"{file.stem}{m}{end}" for m in ("", "_mask") for end in endings]
    return next((way for way in ways if way.is_file()), ways[0])


def _reader(files, regions, greys, label):
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


def _check(files, modes):
    """Read the headers of `files`, which are alike; returns (H, W, C, bits)."""
    first: tuple[int, ...] | None = None
    for file in files:
        with _opened(file) as image:
            shape, mode = _shape(image), image.mode
            depth = _depth(file, image)
            clear = "transparency" in image.info
            pages = getattr(image, "n_frames", 1)
            kind = image.format
            turned = image.getexif().get(_ORIENTATION, 1)
        if kind == "TIFF" and turned != 1:
            # Pillow (13.0) reads the lines of such files at a wrong length.
            raise ValueError(
                f"{file}: is stored turned (orientation {turned}); save it upright"
            )
        if pages > 1:
            raise ValueError(f"{file}: {pages} pages; save one image a file")
        # Pillow would halve the depth of 16-bit colour; the header has the true one.
        odd = depth not in ((1, 8, 16, 32) if "1" in modes else (8, 16, 32))
        if mode not in modes or odd or clear or (mode == "RGB" and depth == 16):
            raise ValueError(
                f"{file}: a {kind} of mode {mode} and {depth} bits; need 8- or 16-bit "
                "grey or 8-bit RGB, without palette or transparency"
            )
        shape = (*shape, depth)
        first = first or shape
        # A mask of one bit is no other than one of eight.
        if shape[:3] != first[:3] or ("1" not in modes and shape != first):
            raise ValueError(
                f"{file}: {_size(shape)}, but {files[0].name} is {_size(first)}; all "
                "must be alike"
            )
    assert first is not None
    return first


def _check_depth(files, greys):
    """Refuse 12 bits in files of 16 that would come out nearly black."""
    if greys.scale <= 4 * (_TWELVE + 1):
        return
    step = max(1, len(files) // _SAMPLED)
    high = 0.0
    for file in files[::step][:_SAMPLED]:
        pixels = _read(file)
        if pixels.dtype.kind not in "ui":
            return
        high = max(high, float(pixels.max()))
    if 255 < high <= _TWELVE:
        raise ValueError(
            f"{files[0].parent}: greys up to {high:g}, which data.scale="
            f"{greys.scale:g} would make nearly black; files of 12 bits want data."
            "scale=4095"
        )


def _read(file):
    with _opened(file) as image:
        image.load()
        return np.asarray(ImageOps.exif_transpose(image))


def _opened(file):
    if not file.is_file():
        raise ValueError(f"{file}: no such file, but there is an image of this name")
    return opened(file, file, [FORMATS[file.suffix.lower()]])


def _depth(file: Path, image: Image.Image) -> int:
    if image.format == "PNG":
        with file.open("rb") as stream:
            return stream.read(25)[24]
    return {"1": 1, "F": 32, "I": 32}.get(image.mode, 16 if "16" in image.mode else 8)


def _shape(image):
    width, height = image.size
    if image.getexif().get(_ORIENTATION, 1) >= _TURNED:
        width, height = height, width
    return height, width, 3 if image.mode == "RGB" else 1


def _size(shape):
    depth = f" of {shape[3]} bits" if shape[3] != 8 else ""
    return f"{shape[0]}x{shape[1]} {'RGB' if shape[2] == 3 else 'grey'}{depth}"


def _endings() -> str:
    return ", ".join(FORMATS)
