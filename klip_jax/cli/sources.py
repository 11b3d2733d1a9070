"""Which reader a path is for, by what lies there; no pixel is read."""

import pathlib
from typing import Any


def reader_of(path: str, masks: str = "") -> dict[str, Any]:
    """Return the settings of the reader of a file or folder.

    Args:
      path: as the user named it.
      masks: a folder of masks of the same names; "" for none.

    Raises:
      FileNotFoundError: if there is nothing.
      ValueError: if no reader is for what is there.
    """
    place = pathlib.Path(path)
    if not place.exists():
        raise FileNotFoundError(f"{path}: no such file or folder of images")
    place = place.absolute()
    if place.is_dir():
        reader = {"name": "folder.load", "folder": str(place)}
    elif place.suffix == ".npz":
        reader = {"name": "npz.load", "file": str(place)}
    else:
        raise ValueError(
            f"{path}: no reader is for such a file; name one with --reader, see klip "
            "list readers"
        )
    return with_masks(reader, masks)


def with_masks(reader: dict[str, Any], masks: str | None) -> dict[str, Any]:
    """Return the settings of a reader with a folder of masks around it, if any."""
    if not masks:
        return reader
    folder = str(pathlib.Path(masks).absolute())
    return {"name": "masked.load", "data": reader, "folder": folder}
