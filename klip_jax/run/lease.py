"""Who works on what: leases, so that several workers share a workdir.

    claims/<name>.<generation>

A lease is a file that exactly one worker could make. While the worker lives it holds a
lock on the file (seen on the same machine) and sets its time anew (seen on all). One
whose lock is gone, or whose time is old, is dead: whoever makes the next generation
takes its work over. Two workers on one chunk would cost time, not results: they write
the same numbers, each whole.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator

FOLDER = "claims"


@contextlib.contextmanager
def lease(folder, name: str, minutes: float) -> Iterator[bool]:
    """Hold the lease `name` of a workdir while the block runs.

    Args:
      folder: the workdir.
      name: of the work, safe as a file name.
      minutes: without a sign of life after which others, on other machines, take over.

    Yields:
      Whether this worker has it; if not, somebody alive does.
    """
    claims = pathlib.Path(folder) / FOLDER
    claims.mkdir(exist_ok=True)
    before = _generations(claims, name)
    if before and is_alive(before[-1], minutes):
        yield False
        return
    number = int(before[-1].suffix[1:]) + 1 if before else 0
    path = claims / f"{name}.{number}"
    handle = _make(path)
    if handle is None:
        yield False
        return
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, 15 * minutes, stop), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        for old in (*before, path):
            old.unlink(missing_ok=True)
        os.close(handle)


@contextlib.contextmanager
def alone(folder, name: str, minutes: float = 10.0) -> Iterator[None]:
    """Hold a lease that nobody else may have meanwhile, a training's say.

    Raises:
      ValueError: if another worker, alive, has it.
    """
    with lease(folder, name, minutes) as mine:
        if not mine:
            raise ValueError(
                f"{folder}: another process is at work here ({name}); wait for its "
                "end, or give another --workdir"
            )
        yield


def is_alive(path: pathlib.Path, minutes: float) -> bool:
    """Return whether the worker that made the lease `path` gives signs of life."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        age = _now(path.parent) - os.fstat(handle).st_mtime
        if age > 60 * minutes:
            return False
        if os.read(handle, 4096).decode(errors="replace") != _machine():
            return True
        return not _lock(handle)
    finally:
        os.close(handle)


def anybody(folder, minutes: float) -> bool:
    """Return whether any worker is at work in `folder` or a folder below it."""
    files = pathlib.Path(folder).rglob(f"{FOLDER}/*")
    return any(is_alive(p, minutes) for p in files if not p.name.startswith("."))


def _generations(claims, name):
    files = (p for p in claims.glob(f"{name}.*") if p.suffix[1:].isdigit())
    return sorted(files, key=lambda p: int(p.suffix[1:]))


def _make(path):
    """Make a lease, locked before it can be seen; None if somebody was first."""
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    handle = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _lock(handle)
        os.write(handle, _machine().encode())
        os.link(hidden, path)
    except FileExistsError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    finally:
        hidden.unlink(missing_ok=True)
    return handle


def _lock(handle) -> bool:
    """Lock a file if nobody has; False also where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _beat(path, seconds, stop):
    while not stop.wait(seconds):
        with contextlib.suppress(OSError):
            os.utime(path)


def _now(folder) -> float:
    """Return the time by the clock of the file system, which all machines share."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


def _machine() -> str:
    """Name this machine since it was started: locks and processes end with it."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return json.dumps({"host": platform.node(), "boot": boot})
