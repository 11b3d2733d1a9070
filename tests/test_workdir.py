import json

import pytest

from klip_jax import workdir

SETTINGS = dict(a=1, b=dict(c=(1, 2), d="x"))
CONTENTS = dict(prior="0a1b")


def test_a_folder_is_claimed_once(tmp_path):
    folder = tmp_path / "deep" / "run"
    workdir.claim(folder, SETTINGS, CONTENTS)
    record = workdir.read_config(folder)
    assert record["config"] == dict(a=1, b=dict(c=[1, 2], d="x"))
    assert record["versions"].keys() >= {"jax", "flax", "python", "device"}
    written = (folder / "config.json").stat()
    workdir.claim(folder, SETTINGS, CONTENTS)
    assert (folder / "config.json").stat().st_mtime_ns == written.st_mtime_ns
    assert (folder / "config.json").stat().st_ino == written.st_ino


def test_another_number_at_once_is_the_same_run(tmp_path):
    workdir.claim(tmp_path, SETTINGS | dict(images_at_once=1), CONTENTS)
    workdir.claim(tmp_path, SETTINGS | dict(images_at_once=8), CONTENTS)
    assert workdir.read_config(tmp_path)["config"]["images_at_once"] == 1


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (dict(a=2, b=SETTINGS["b"]), "a was 1, is now 2"),
        (dict(a=1, b=dict(c=(1, 3), d="x")), r"b.c was \[1, 2\], is now \[1, 3\]"),
        (dict(a=1, b=dict(c=(1, 2))), "b.d is in only one of them"),
        (dict(SETTINGS, e=0), "e is in only one of them"),
        (dict(a=1, b=3), "b was {.*}, is now 3"),
    ],
)
def test_the_first_difference_is_named(tmp_path, other, words):
    workdir.claim(tmp_path, SETTINGS, CONTENTS)
    with pytest.raises(ValueError, match=words):
        workdir.claim(tmp_path, other, CONTENTS)
    assert workdir.read_config(tmp_path)["config"]["a"] == 1


def test_new_weights_under_the_old_path_are_another_run(tmp_path):
    workdir.claim(tmp_path, SETTINGS, CONTENTS)
    with pytest.raises(ValueError, match="the same config with another prior"):
        workdir.claim(tmp_path, SETTINGS, dict(prior="2c3d"))


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: no run here"):
        workdir.read_config(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"config": 3}', "\xff"])
def test_a_broken_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"config\.json: not whole"):
        workdir.read_config(tmp_path)


def test_shipped_files():
    assert str(workdir.shipped("mine", "phantom_ct.safetensors")) == "mine"
    assert workdir.shipped("", "phantom_ct.safetensors").is_file()


@pytest.mark.parametrize("packed", [False, True])
def test_the_commit_of_a_checkout(tmp_path, monkeypatch, packed):
    git = tmp_path / ".git"
    (git / "refs/heads").mkdir(parents=True)
    monkeypatch.setattr(workdir, "PACKAGE", tmp_path / "klip_jax")
    assert workdir.git_commit() == ""
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    if packed:
        lines = (
            f"# pack-refs\n{'a' * 40} refs/heads/other\n{'b' * 40} refs/heads/main\n"
        )
        (git / "packed-refs").write_text(lines)
    else:
        (git / "refs/heads/main").write_text("b" * 40 + "\n")
    assert workdir.git_commit() == "b" * 40
    (git / "HEAD").write_text("c" * 40 + "\n")
    assert workdir.git_commit() == "c" * 40
    assert json.dumps(workdir.versions())
