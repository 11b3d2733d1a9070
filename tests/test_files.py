"""Files are whole or absent; their permissions are the user's."""

import os
import stat

import pytest

from klip_jax import files


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644)])
def test_the_umask_is_respected(tmp_path, umask, mask, mode):
    umask(mask)
    files.write_atomically(tmp_path / "sub" / "a", b"1")
    files.write_new(tmp_path / "b", b"2")
    for path in (tmp_path / "sub" / "a", tmp_path / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    files.write_atomically(tmp_path / "b", b"3")
    assert (tmp_path / "b").read_bytes() == b"3"


def test_a_new_file_replaces_nothing(tmp_path):
    files.write_new(tmp_path / "a", b"1")
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"1"
    assert files.temporaries(tmp_path) == [] and len(list(tmp_path.iterdir())) == 1


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    files.write_atomically(tmp_path / "a", b"1")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    for write in (files.write_atomically, files.write_new):
        with pytest.raises(OSError, match="No space left"):
            write(tmp_path / "a", b"22")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"1"


def test_the_folder_is_flushed(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(files, "flush", flushed.append)
    files.write_atomically(tmp_path / "a", b"1")
    files.write_new(tmp_path / "b", b"1")
    assert flushed == [tmp_path, tmp_path]
