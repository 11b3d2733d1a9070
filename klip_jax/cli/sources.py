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
    if masks:
        raise ValueError(f"--masks={masks}: no reader of masks")
    if place.suffix == ".npz":
        return {"name": "npz.load", "file": str(place)}
    if place.is_dir():
        return {"name": "folder.load", "folder": str(place)}
    raise ValueError(
        f"{path}: no reader is for such a file; name one with --reader, see klip list "
        "readers"
    )
