"""Which reader a file or folder is for, by names and first bytes; no pixel is read."""

from pathlib import Path
from typing import Any

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_HDF5 = (".h5", ".hdf5")
_READERS = {
    # kind: (reader, its setting)
    "npz": ("npz.load", "file"),
    "npy": ("array.load", "file"),
    "zarr": ("array.load", "file"),
    "mat": ("array.load", "file"),
    "hdf5": ("hdf5.load", "file"),
    "nifti": ("nifti.load", "file"),
    "dicom": ("dicom.load", "folder"),
    "picture": ("folder.load", "folder"),
}
_MOST = 2000  # files of a folder that are looked at


def settings_of(path: str, *, masks: str = "") -> dict[str, Any]:
    """Return the settings of the reader of a file or folder.

    Args:
      path: as the user named it.
      masks: a folder of masks of the same names; "" for none.

    Raises:
      FileNotFoundError: if there is nothing.
      ValueError: if no reader is for what is there, or several are.
    """
    place = Path(path).absolute()
    if not place.exists():
        raise FileNotFoundError(f"{path}: no such file or folder of images")
    kind = _kind(place) if place.is_file() else _kind_of_folder(place, path)
    if not kind:
        raise ValueError(
            f"{path}: no reader is for such a file; name one with --reader, see klip "
            "list readers"
        )
    if kind == "mvtec":
        if masks:
            raise ValueError(
                f"{path}: a category of MVTec AD brings its masks; leave out --masks"
            )
        return {"name": "mvtec.load", "folder": str(place)}
    name, setting = _READERS[kind]
    reader: dict[str, Any] = {"name": name, setting: str(place)}
    if not masks:
        return reader
    if kind == "nifti":
        return reader | {"masks": str(Path(masks).absolute())}
    folder = str(Path(masks).absolute())
    return {"name": "masked.load", "data": reader, "folder": folder}


def _kind_of_folder(place: Path, path: str) -> str:
    if (place / "zarr.json").is_file() or (place / ".zarray").is_file():
        return "zarr"
    if (place / "test/good").is_dir() and (place / "train").is_dir():
        return "mvtec"
    counts: dict[str, int] = {}
    files = (p for p in sorted(place.rglob("*")) if p.is_file())
    for i, file in enumerate(files):
        if i == _MOST:
            break
        if file.name.startswith("."):
            continue
        kind = _kind(file)
        if kind:
            counts[kind] = counts.get(kind, 0) + 1
    if len(counts) > 1:
        said = ", ".join(f"{n} of {kind}" for kind, n in sorted(counts.items()))
        raise ValueError(
            f"{path}: holds files of several kinds, {said}; name a folder of one, or "
            "say which with --reader"
        )
    kind = next(iter(counts), "")
    if kind in ("npz", "npy", "mat"):
        raise ValueError(
            f"{path}: {counts[kind]} files of {kind}; name one of them, or a folder of "
            "pictures, DICOM or NIfTI"
        )
    return kind


def _kind(file: Path) -> str:
    """Return what a file is: by its first bytes, pictures and gzip by their names."""
    name = file.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    if file.suffix.lower() in _PICTURES:
        return "picture"
    with file.open("rb") as stream:
        first = stream.read(132)
    if first[128:] == b"DICM":
        return "" if name == "dicomdir" else "dicom"
    if first.startswith(b"\x93NUMPY"):
        return "npy"
    if first.startswith(b"PK\x03\x04") and name.endswith(".npz"):
        return "npz"
    if first.startswith(b"MATLAB 5.0") or name.endswith(".mat"):
        return "mat"
    if first.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    return ""
