"""Files that are whole or absent, whatever happens to the process that writes them.

A file is written beside its place under a hidden name, flushed to the disk and renamed;
then its folder is flushed too, so that the name survives a loss of power. Permissions
are those of the user's umask.
"""

import os
import pathlib
import uuid

TEMPORARY = "*.tmp", "*.partial"
"""Names of files that are being written: ours, and those of zarr."""


def write_atomically(path, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the whole new one.

    Args:
      path: file to write; its folder is made.
      data: its contents.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _write_beside(path, data)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_new(path, data: bytes) -> None:
    """Write a file that must not exist yet; of two at once, exactly one succeeds.

    Raises:
      FileExistsError: if it exists; it is left as it is.
    """
    path = pathlib.Path(path)
    temporary = _write_beside(path, data)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def flush(path) -> None:
    """Flush the contents of a file to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(path) -> None:
    """Flush the names in a folder to the disk, where the file system can."""
    try:
        flush(path)
    except OSError:
        # Some file systems cannot open or flush a folder: they keep names themselves.
        return


def temporaries(folder) -> list[pathlib.Path]:
    """Return the files below `folder` that somebody writes, or was killed writing."""
    folder = pathlib.Path(folder)
    return [path for pattern in TEMPORARY for path in folder.rglob(pattern)]


def _write_beside(path: pathlib.Path, data: bytes) -> pathlib.Path:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    # 0o666 less the umask, as for any file the user makes.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
