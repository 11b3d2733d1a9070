"""A workdir has one config, and a chunk one worker."""

import json
import multiprocessing
import os
import threading
import time

import jax
import pytest

from klip_jax.run import claim as claims
from klip_jax.run.claim import claim, first_difference
from klip_jax.run.lease import alone, anybody, lease

SETTINGS = dict(seed=0, run=dict(chunk=4, lease_minutes=10.0))


def changed(**changes):
    return SETTINGS | changes


def test_a_claim_is_made_once_and_kept(tmp_path):
    claim(tmp_path / "w", SETTINGS, dict(prior="p"), dict(main="klip"))
    before = (tmp_path / "w/config.json").read_bytes()
    meta = json.loads(before)
    assert meta["settings"] == SETTINGS and meta["main"] == "klip"
    assert {"jax", "device"} <= meta["versions"].keys() and len(meta["digest"]) == 64
    # What changes no result may differ.
    run = dict(chunk=9, lease_minutes=1.0)
    claim(tmp_path / "w", changed(run=run), dict(prior="p"))
    # So may the order in which settings are written.
    claim(tmp_path / "w", dict(reversed(SETTINGS.items())), dict(prior="p"))
    assert (tmp_path / "w/config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "contents", "words"),
    [
        (changed(seed=1), dict(prior="p"), "another config: seed was 0, is now 1"),
        (SETTINGS, dict(prior="q"), "same config with other prior: a file changed"),
        (SETTINGS, dict(prior="p", images="i"), "same config with other images"),
    ],
)
def test_a_workdir_of_something_else(tmp_path, settings, contents, words):
    claim(tmp_path, SETTINGS, dict(prior="p"))
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=words):
        claim(tmp_path, settings, contents)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_default_prng_impl", "rbg"),
        ("jax_enable_x64", True),
        ("jax_threefry_partitionable", False),
    ],
)
def test_random_streams_are_not_mixed(tmp_path, name, value):
    claim(tmp_path, SETTINGS, {})
    before = getattr(jax.config, name)
    try:
        jax.config.update(name, value)
        with pytest.raises(ValueError, match=f"other random streams: {name} was"):
            claim(tmp_path, SETTINGS, {})
    finally:
        jax.config.update(name, before)


@pytest.mark.parametrize("left", ["scores", "maps.zarr", "maps"])
def test_results_of_nobody(tmp_path, left):
    (tmp_path / left).mkdir()
    with pytest.raises(ValueError, match=f"holds {left} but no config.json"):
        claim(tmp_path, SETTINGS, {})
    assert [p.name for p in tmp_path.iterdir()] == [left]


def test_a_config_changed_by_hand(tmp_path):
    claim(tmp_path, SETTINGS, {})
    meta = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(meta | dict(digest="0" * 64)))
    with pytest.raises(ValueError, match=r"config\.json was changed by hand"):
        claim(tmp_path, SETTINGS, {})


def test_of_many_claims_at_once_one_config_wins(tmp_path):
    gate, wins, losses = threading.Barrier(8), [], []

    def one(seed):
        gate.wait()
        try:
            claim(tmp_path / "w", changed(seed=seed), {})
            wins.append(seed)
        except ValueError as error:
            losses.append(str(error))

    threads = [threading.Thread(target=one, args=(i % 2,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 4 and len(set(wins)) == 1
    assert len(losses) == 4 and all("another config: seed" in text for text in losses)
    held = json.loads((tmp_path / "w/config.json").read_text())["settings"]["seed"]
    assert held == wins[0]
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["config.json"]


def test_unwritable_workdirs(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(PermissionError, match="cannot be made"):
            claim(folder, SETTINGS, {})
    assert (tmp_path / "file").read_text() == "mine"
    # The superuser may write anywhere, so it is the question that is answered here.
    monkeypatch.setattr(claims.os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"new: not writable; .*--workdir"):
        claim(tmp_path / "new", SETTINGS, {})
    assert not (tmp_path / "new").exists()


def test_what_killed_workers_left_is_swept(tmp_path):
    claim(tmp_path, SETTINGS, {})
    left = [
        tmp_path / "scores" / ".part-00001.parquet.77.tmp",
        tmp_path / "maps.zarr" / "a" / "c.1.0.abc.partial",
        tmp_path / ".metrics.json.1.tmp",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with lease(tmp_path, "chunk-00001", 10.0) as mine:
        assert mine and anybody(tmp_path, 10.0)
        claim(tmp_path, SETTINGS, {})
        assert all(path.exists() for path in left)  # somebody may be writing them
    claim(tmp_path, SETTINGS, {})
    assert not any(path.exists() for path in left)


def test_the_first_difference_is_named():
    assert first_difference(dict(a=dict(b=1)), dict(a=dict(b=2))) == (
        "a.b was 1, is now 2"
    )
    assert first_difference(dict(a=1), {}) == "a is in only one of them"
    assert first_difference(dict(a=[1]), dict(a=[1])) == ""


def test_one_worker_has_a_lease(tmp_path):
    with lease(tmp_path, "chunk-00000", 10.0) as mine:
        assert mine
        with lease(tmp_path, "chunk-00000", 10.0) as again:
            assert not again
        with lease(tmp_path, "chunk-00001", 10.0) as other:
            assert other
        with pytest.raises(ValueError, match="another process is at work here"):
            with alone(tmp_path, "chunk-00000"):
                pass
    assert list((tmp_path / "claims").iterdir()) == []
    with lease(tmp_path, "chunk-00000", 10.0) as mine:
        assert mine


def hold(folder, ready):
    with lease(folder, "chunk-00000", 10.0) as mine:
        ready.put(mine)
        time.sleep(600)


def test_a_killed_worker_is_taken_over_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    worker = context.Process(target=hold, args=(tmp_path, ready), daemon=True)
    worker.start()
    assert ready.get(timeout=120)
    with lease(tmp_path, "chunk-00000", 10.0) as mine:
        assert not mine  # it lives
    worker.kill()
    worker.join()
    assert len(list((tmp_path / "claims").iterdir())) == 1
    with lease(tmp_path, "chunk-00000", 10.0) as mine:
        assert mine
    assert list((tmp_path / "claims").iterdir()) == []


def test_a_worker_of_another_machine_is_taken_over_when_it_is_silent(tmp_path):
    (tmp_path / "claims").mkdir()
    path = tmp_path / "claims" / "chunk-00000.3"
    path.write_text('{"host": "elsewhere", "boot": ""}')
    with lease(tmp_path, "chunk-00000", 10.0) as mine:
        assert not mine
    old = time.time() - 601
    os.utime(path, (old, old))
    with lease(tmp_path, "chunk-00000", 10.0) as mine:
        names = {p.name for p in (tmp_path / "claims").iterdir()}
        assert mine and names == {"chunk-00000.3", "chunk-00000.4"}
        with lease(tmp_path, "chunk-00000", 10.0) as again:
            assert not again


def test_a_lease_gives_signs_of_life(tmp_path):
    with lease(tmp_path, "chunk-00000", 0.05 / 15) as mine:
        (path,) = (tmp_path / "claims").iterdir()
        os.utime(path, (0, 0))
        limit = time.monotonic() + 20
        while path.stat().st_mtime < 1 and time.monotonic() < limit:
            time.sleep(0.02)
        assert mine and path.stat().st_mtime > 1


def test_of_many_workers_one_has_it(tmp_path):
    gate, have, done = threading.Barrier(8), [], threading.Event()

    def one():
        gate.wait()
        with lease(tmp_path, "chunk-00000", 10.0) as mine:
            have.append(mine)
            if mine:
                done.wait(20)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(have) < 8:
        time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert sum(have) == 1
