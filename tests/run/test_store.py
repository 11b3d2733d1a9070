"""A chunk is there whole or not at all, and what is broken is named."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from klip_jax.run.store import COLUMNS, FORMAT, Store, create, read_config

META = dict(digest="abc", chunk=4, settings={}, detectors={})


def rows(index, detectors=("a", "b"), offset=0.0):
    """Return columns of images at `index`, a row an image and detector."""
    i = np.repeat(np.asarray(index), len(detectors))
    names = list(detectors) * len(index)
    numbers = {c: i + offset for c in COLUMNS}
    texts = dict(
        image_id=[f"image {k}" for k in i], group=["id"] * len(i), patient=[""] * len(i)
    )
    whole = dict(index=i, network_calls=i, first_bad_step=np.full(len(i), -1))
    return numbers | texts | whole | dict(detector=names)


def write(store, chunk, total=10):
    first = 4 * chunk
    index = np.arange(first, min(first + 4, total))
    arrays = {
        "a/heatmap": np.float64(index)[:, None, None] * np.ones((1, 3, 3)),
        "b/flags": np.zeros((len(index), 2), bool),
        "b/number": np.full(len(index), np.nan),
    }
    store.write_chunk(chunk, rows(index), arrays, total)


@pytest.fixture
def folder(tmp_path):
    create(tmp_path, META)
    store = Store(tmp_path)
    for chunk in (2, 0, 1):
        write(store, chunk)
    return tmp_path


def test_what_was_written_is_read(folder):
    store = Store(folder)
    assert store.chunks_done() == [0, 1, 2] and store.meta["format"] == FORMAT
    found = store.scores(["score", "detector", "image_id"])
    np.testing.assert_array_equal(found["score"], np.repeat(np.arange(10), 2))
    assert found["detector"].tolist() == ["a", "b"] * 10
    assert found["image_id"][-1] == "image 9"
    assert store.scores().keys() == set(COLUMNS)
    assert store.array_names() == ["a/heatmap", "b/flags", "b/number"]
    heatmap = store.array("a/heatmap")
    assert heatmap.shape == (10, 3, 3) and heatmap.dtype == np.float32
    np.testing.assert_array_equal(heatmap[3:9][:, 0, 0], np.arange(3, 9))
    assert store.array("b/flags").dtype == bool and not store.array("b/flags")[:].any()


def test_what_is_not_done_is_nan(tmp_path):
    create(tmp_path, META)
    store = Store(tmp_path)
    assert store.scores()["score"].shape == (0,) and store.array_names() == []
    write(store, 1)
    assert store.chunks_done() == [1] and store.is_done(1) and not store.is_done(0)
    heatmap = store.array("a/heatmap")[:]
    assert np.isnan(heatmap[:4]).all() and np.isfinite(heatmap[4:8]).all()
    assert store.scores(["index"])["index"].tolist() == [4, 4, 5, 5, 6, 6, 7, 7]


def test_names_of_any_kind(tmp_path):
    create(tmp_path, META)
    store, names = Store(tmp_path), ["ä ö(1).png", "病人/2", "=1+1", "a'b\"c"]
    store.write_chunk(0, rows(np.arange(4)) | dict(image_id=np.repeat(names, 2)), {}, 4)
    assert store.scores(["image_id"])["image_id"][::2].tolist() == names


@pytest.mark.parametrize(
    ("made", "error"),
    [
        ("open_group", zarr.errors.ContainsGroupError),
        ("create_array", zarr.errors.ContainsArrayError),
    ],
)
def test_another_worker_is_first_with_the_arrays(tmp_path, monkeypatch, made, error):
    make = getattr(zarr, made)

    def too_late(*args, **settings):
        make(*args, **settings)  # by the other, after both saw that there was none
        raise error("there is one")

    monkeypatch.setattr(zarr, made, too_late)
    create(tmp_path, META)
    store = Store(tmp_path)
    write(store, 0)
    np.testing.assert_array_equal(store.array("a/heatmap")[:4, 0, 0], np.arange(4))


def test_a_workdir_is_made_once(tmp_path):
    create(tmp_path / "new", META)
    with pytest.raises(FileExistsError):
        create(tmp_path / "new", META | dict(digest="other"))
    assert read_config(tmp_path / "new")["digest"] == "abc"


@pytest.mark.parametrize(
    ("file", "keep", "words"),
    [
        ("scores/part-00001.parquet", 0, r"part-00001.parquet: not a whole part"),
        ("scores/part-00001.parquet", 100, r"part-00001.parquet: not a whole part"),
        ("maps.zarr/a/heatmap/c.1.0.0", 5, r"c.1.0.0: 5 bytes.*delete .*part-00001"),
        ("maps.zarr/b/flags/c.1.0", None, r"c.1.0: 0 bytes.*delete .*part-00001"),
        ("config.json", 20, "config.json: not whole"),
        ("config.json", None, "config.json: no run here"),
    ],
)
def test_what_is_truncated_or_gone_is_named(folder, file, keep, words):
    path = folder / file
    data = path.read_bytes()
    path.unlink()
    if keep is not None:
        path.write_bytes(data[:keep])
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        Store(folder)
    assert "\n" not in str(caught.value)


def test_flipped_bits_are_noticed_when_they_are_read(folder):
    path = folder / "maps.zarr/a/heatmap/c.1.0.0"
    data = bytearray(path.read_bytes())
    data[-2] ^= 0x10
    path.write_bytes(bytes(data))
    store = Store(folder)
    assert np.isfinite(store.array("a/heatmap")[:4]).all()
    with pytest.raises(ValueError, match=r"a/heatmap: a chunk is broken.*run again"):
        store.array("a/heatmap")[4:]
    (folder / "maps.zarr/a/heatmap/zarr.json").write_text("{")
    with pytest.raises(ValueError, match="a/heatmap: no whole array"):
        store.array("a/heatmap")
    path = folder / "scores/part-00002.parquet"
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"part-00002\.parquet: not a whole part"):
        Store(folder).scores()


def test_a_part_of_another_config_is_refused(folder):
    meta = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(meta | dict(digest="other")))
    with pytest.raises(ValueError, match=r"part-00000.parquet: belongs to another"):
        Store(folder)


def test_a_foreign_part_is_refused(folder):
    pq.write_table(pq.read_table(folder / "scores/part-00000.parquet").slice(0, 3),
                   folder / "scores/part-00003.parquet")  # fmt: skip
    with pytest.raises(ValueError, match=r"part-00003\.parquet: not a whole part"):
        Store(folder)


@pytest.mark.parametrize("text", ['{"format": 1}', "{}", '{"versions": {}}', "[]", "3"])
def test_a_workdir_of_the_first_house(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"by another klip_jax.*another --workdir"):
        Store(tmp_path)


def test_a_deleted_workdir_does_not_come_back(folder):
    store = Store(folder)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match="was deleted while it was run"):
        write(store, 0)
    assert list(folder.iterdir()) == []


def test_what_does_not_fit_is_not_written(tmp_path):
    create(tmp_path, META)
    store, index = Store(tmp_path), np.arange(4)
    with pytest.raises(ValueError, match="'m' has 3 images, not 4"):
        store.write_chunk(0, rows(index), dict(m=np.ones(3)), 8)
    with pytest.raises(ValueError, match="'m' is <U1; store numbers"):
        store.write_chunk(0, rows(index), dict(m=np.array(list("abcd"))), 8)
    with pytest.raises(ValueError, match=r"columns .*'misfit'"):
        few = {k: v for k, v in rows(index).items() if k != "misfit"}
        store.write_chunk(0, few, {}, 8)
    assert not (tmp_path / "scores").exists()
    store.write_chunk(0, rows(index), dict(m=np.ones((4, 2))), 8)
    with pytest.raises(ValueError, match=r"'?m'?: float32 .8, 2. in the workdir, now"):
        store.write_chunk(1, rows(index + 4), dict(m=np.ones((4, 3))), 8)
