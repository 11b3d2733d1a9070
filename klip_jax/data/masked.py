"""Any image set with a folder of masks of the same names: what is odd, and where.

    data=dict(
        name="masked.load",
        data=dict(name="folder.load", folder="slices"),
        folder="masks",
    )

`7.png`, `7_mask.png` or `7.tif` is the mask of the image `7`. An image whose mask shows
nothing is in-distribution, as is one without a mask where `absent` is "id".
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from klip_jax.data.base import ImageSet, data_root
from klip_jax.data.base_pillow import opened
from klip_jax.data.transforms import mask_of

_FORMATS = ("PNG", "TIFF", "BMP")
_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
_ENDINGS = ("", "_mask")


def load(
    *,
    data: Any,
    folder: str,
    root: str = "",
    label: int = 0,
    absent: str = "",
    anomalous: str = "anomalous",
) -> ImageSet:
    """Return the images of `data` with the masks of a folder.

    Args:
      data: a set, in a config dict(name=..., ...) of a reader.
      folder: of the masks, below `root`, or absolute.
      root: folder; default $KLIP_DATA, else ../shared/data.
      label: the value of the anomaly in masks that are labels; 0 where they are not.
      absent: the group of an image without a mask: "" is unknown, "id" is healthy.
      anomalous: the group of an image whose mask shows something.

    Raises:
      FileNotFoundError: if the folder is absent.
      ValueError: if a mask is of another size, is none, or belongs to no image; if an
        image has two, or none has one.
    """
    if not isinstance(data, ImageSet):
        raise ValueError(
            f"data.data is a {type(data).__name__}, not an ImageSet; give "
            "dict(name=..., ...) of a reader"
        )
    path = data_root(root) / folder
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of masks")
    files = _files(path, data.ids)
    blank = np.zeros(data.shape[:2], bool)

    def mask(name: str) -> np.ndarray:
        return _read(files[name], label, data.shape) if name in files else blank

    groups = tuple(
        absent if name not in files else anomalous if mask(name).any() else "id"
        for name in data.ids
    )

    def reader(index):
        masks = np.stack([mask(data.ids[i]) for i in index])
        return data.read(index)._replace(masks=masks)

    regions = tuple(dict.fromkeys(("masks", *data.regions)))
    patients = data.ids if data.patients is None else data.patients
    return dataclasses.replace(
        data, groups=groups, reader=reader, regions=regions, patients=patients
    )


def _files(path: pathlib.Path, ids: tuple[str, ...]) -> dict[str, pathlib.Path]:
    """Return the mask of each image that has one."""
    known = set(ids)
    files: dict[str, pathlib.Path] = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() not in _SUFFIXES or file.name.startswith("."):
            continue
        names = [file.stem.removesuffix(ending) for ending in _ENDINGS]
        name = next((n for n in names if n in known), None)
        if name is None:
            raise ValueError(f"{file}: a mask of no image; there is no {names[-1]!r}")
        if name in files:
            raise ValueError(f"{file}: the image {name!r} has {files[name].name} too")
        files[name] = file
    if not files:
        raise ValueError(f"{path}: no masks; they are {', '.join(_SUFFIXES)} files")
    return files


def _read(file: pathlib.Path, label: int, shape) -> np.ndarray:
    with opened(file, file, _FORMATS) as image:
        image.load()
        values = mask_of(np.asarray(image), label, str(file))
    mask = np.asarray(values.any(-1) if values.ndim == 3 else values)
    if mask.shape != tuple(shape[:2]):
        raise ValueError(
            f"{file}: a mask of {mask.shape[0]}x{mask.shape[1]} for images of "
            f"{shape[0]}x{shape[1]}"
        )
    return mask
