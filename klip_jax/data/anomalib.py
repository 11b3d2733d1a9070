"""Folders as anomalib's `Folder` takes them: of normal images, of abnormal ones, masks.

    data=dict(name="anomalib.load", folder="screws", normal="good",
              abnormal=("crack", "scratch"), masks=("mask/crack", "mask/scratch"))

BMAD is one of them: normal="test/good/img", abnormal=("test/Ungood/img",),
masks=("test/Ungood/label",). A mask has the name of its image, or that and `_mask`.
"""

from pathlib import PurePath

from klip_jax.data.base import ImageSet, data_root
from klip_jax.data.base_join import join
from klip_jax.data.base_pictures import named_like, picture_set, pictures
from klip_jax.data.transforms import Greys


def load(
    *,
    folder: str,
    root: str = "",
    normal: str = "normal",
    abnormal: tuple[str, ...] = (),
    masks: tuple[str, ...] = (),
    per_group: int = 0,
    offset: float = 0.0,
    scale: float = 255.0,
    clip: bool = False,
    label: int = 0,
) -> ImageSet:
    """Read normal and abnormal images.

    Args:
      folder: below `root`, or absolute.
      root: folder; default $KLIP_DATA, else ../shared/data.
      normal: its sub-folder of in-distribution images; "" for none.
      abnormal: its sub-folders of others, each a group of its own name.
      masks: a sub-folder of masks for each of `abnormal`; empty for none.
      per_group, offset, scale, clip, label: as of `folder.load`.

    Raises:
      FileNotFoundError: if a folder is absent.
      ValueError: if there is a mask too few, a folder leads out of `folder`, or a
        picture is broken or unlike others.
    """
    top = data_root(root) / folder
    if masks and len(masks) != len(abnormal):
        raise ValueError(
            f"data.masks={masks}: give one folder for each of data.abnormal={abnormal}"
        )
    greys, parts = Greys(offset, scale, clip), []
    places = [(normal, "")] if normal else []
    for name, mask in [
        *places,
        *zip(abnormal, masks or [""] * len(abnormal), strict=True),
    ]:
        path = _below(top, name)
        files, regions = pictures(path, per_group), {}
        if mask:
            place = _below(top, mask)
            regions["masks"] = [named_like(place, file) for file in files]
        group = "id" if name == normal else _group(name)
        own = picture_set(
            files,
            group,
            greys,
            prefix=f"{group}_",
            regions=regions,
            label=label,
            patients=True,
        )
        parts.append(own)
    return join(parts)


def _below(top, name):
    path = top / name
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise ValueError(f"{name!r}: leads out of {top}; name a folder below it")
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    return path


def _group(name):
    """Return the last part of a path that says something: Ungood of test/Ungood/img."""
    parts = [part for part in PurePath(name).parts if part not in ("img", "images")]
    return parts[-1] if parts else name
