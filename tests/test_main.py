"""The command line, as a user starts it."""

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from klip_jax import main, process
from klip_jax.checkpoint import load_weights
from klip_jax.run.store import Store

FACES = Path(__file__).resolve().parent.parent / "configs" / "faces.py"
CONFIG = """
import json
from ml_collections import ConfigDict


def tuples(value):
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return {k: tuples(v) for k, v in value.items()}
    return value


def get_config():
    return ConfigDict(tuples(json.loads('''%s''')))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One device, and a compilation cache of its own."""
    cache = tmp_path_factory.mktemp("cache")
    own = {"XDG_CACHE_HOME": str(cache), "OPENBLAS_NUM_THREADS": "1"}
    drop = "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"
    return {k: v for k, v in os.environ.items() if k not in drop} | own


@pytest.fixture
def start(tmp_path, environment):
    def start(*arguments, **options):
        return subprocess.Popen(
            [sys.executable, "-m", "klip_jax.main", *arguments],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    return start


def write_config(folder, **changes):
    path = folder / "small.py"
    path.write_text(CONFIG % json.dumps(tiny.settings(folder, **changes)))
    return f"--config={path}"


def refused(process, words, status=2):
    """Check the status, one line on stderr that says `words`, and nothing on stdout."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("klip_jax: ") and words in line and len(line) < 1100, line


def test_an_unknown_setting(start, tmp_path):
    refused(
        start("--config.posterior.sample=9", "--workdir=run"),
        'the config has no setting sample. Did you mean "samples" instead',
    )
    assert list(tmp_path.iterdir()) == []


def test_absent_data_to_train_on(start, tmp_path):
    config = write_config(tmp_path, train__data__file="absent.npz")
    refused(
        start(config, "--mode=train"), "absent.npz: no such data; set --config.data"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config=absent.py"], "--config=absent.py: no such file; there are"),
        (["--config=absent"], "--config=absent: no such file, and no experiment of"),
        ([f"--config={FACES}:clear"], "faces.py:clear: choose one of ['blur', 'inpa"),
        (["--config.scan.noise_std=loud"], "could not convert string to float: 'loud'"),
        (["--config.detectors=klap"], "detectors: no 'klap'; there are ['denoised"),
        (["--config.detectors.a=dict(name=open)"], "is no literal such as dict"),
        (["--config.main=klap"], "main='klap': choose one of ['klip', "),
        (["--mode=guess"], "should be one of <detect|train|calibrate|report|convert>"),
        (["--config.prior.weights=w"], "no such weights"),
        (["--mode=report", "--workdir=none"], "none/config.json: no run here"),
        (["--config.run.chunk=0"], "run.chunk=0: a whole number of at least 1"),
        (["stray"], "what is 'stray'? settings are --config.a=b"),
    ],
)
def test_bad_arguments(start, tmp_path, arguments, words):
    refused(start(*arguments), words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_config_that_is_no_python(start, tmp_path):
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    refused(start("--config=broken.py"), "SyntaxError: invalid syntax")
    (tmp_path / "fails.py").write_text("def get_config():\n    return 1 / 0\n")
    refused(start("--config=fails.py"), "ZeroDivisionError")


@pytest.mark.slow
def test_a_workdir_of_the_first_house(start, tmp_path):
    config = write_config(tmp_path)
    (tmp_path / "old").mkdir()
    text = '{"config": {}, "contents": {}, "versions": {}}'
    (tmp_path / "old" / "config.json").write_text(text)
    for mode in ("detect", "report"):
        refused(start(config, "--workdir=old", f"--mode={mode}"), "by another klip_jax")
    assert (tmp_path / "old" / "config.json").read_text() == text
    assert len(list((tmp_path / "old").iterdir())) == 1


@pytest.mark.slow
def test_help(start):
    out, err = (process := start("--help")).communicate(timeout=300)
    assert process.returncode == 0 and err == ""
    assert "--mode=calibrate" in out and "python -m klip_jax.main" in out


def test_a_user_without_a_home(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        process.cache_compilations()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_versions_that_compute_wrong_results_are_named(monkeypatch, capsys):
    for jax_version, reason in (("0.10.2", "#39103"), ("0.11.0", "#40633")):
        monkeypatch.setattr(process, "version", lambda name, v=jax_version: v)
        process.warn_of_wrong_jax()
        (line,) = capsys.readouterr().err.splitlines()
        assert jax_version in line and reason in line
    monkeypatch.setattr(process, "version", lambda name: "0.12.0")
    process.warn_of_wrong_jax()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (OSError(28, "No space left on device", "w/a"), 1, "No space left on device"),
        (ValueError("a\nb" + "c" * 10**6), 1, "a bccc"),
        (FloatingPointError("the loss is nan"), 1, "the loss is nan"),
    ],
)
def test_what_breaks_off_says_so_in_one_line(monkeypatch, capsys, error, status, words):
    def broken():
        raise error

    monkeypatch.setattr(main.sys, "argv", ["klip_jax"])
    monkeypatch.setattr(main, "_begin", lambda: broken)
    assert main.main() == status
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == "" and words in line and len(line) < 1100


def finish(process, status=0):
    out, err = process.communicate(timeout=600)
    assert process.returncode == status, err
    return out


def wait_for(process, condition):
    limit = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.001)


def kill_when(process, condition):
    """SIGKILL `process` as soon as `condition` holds."""
    wait_for(process, condition)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def parts(folder):
    return len(list((folder / "scores").glob("part-*")))


@pytest.mark.slow
def test_a_detection_that_was_killed_goes_on(start, tmp_path):
    n = 30
    tiny.write_data(tmp_path / "data.npz", n)
    config = write_config(
        tmp_path, calibration__draws=20, posterior__steps=20, run__chunk=2
    )
    choice = "--config.detectors=klip,controls,msma.MSMA"
    out = finish(start(config, choice, "--workdir=straight"))
    assert f"{2 * n} to do of {2 * n}" in out and "20 draws of the model to do" in out
    names = "scores.csv", "metrics.json", "report.html", "config.json", "law.npz"
    for name in names:
        assert (tmp_path / "straight" / name).is_file()

    folder = tmp_path / "killed"
    again = (config, choice, "--workdir=killed")
    kill_when(start(*again), lambda: parts(folder / "law") >= 2)
    kill_when(start(*again), lambda: parts(folder) >= 3)
    done = 2 * parts(folder)
    assert 6 <= done < 2 * n
    # A worker that starts sweeps what was not finished.
    (folder / "scores" / ".part-00099.parquet.0.tmp").write_text("half")
    out = finish(start(*again))
    assert f"{2 * n - done} to do of {2 * n}" in out and "law   cached" in out
    assert not list(folder.rglob("*.tmp")) and not list(folder.rglob("*.partial"))

    killed, straight = Store(folder), Store(tmp_path / "straight")
    a, b = killed.scores(), straight.scores()
    assert len(a["score"]) == 2 * n * 11  # klip, nine controls, msma
    for name in a.keys() - {"seconds", "posterior_seconds"}:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert killed.array_names() == straight.array_names()
    for name in killed.array_names():
        one, other = killed.array(name)[:], straight.array(name)[:]
        np.testing.assert_array_equal(one, other, err_msg=name)
    assert (folder / "law.npz").read_bytes() == (
        tmp_path / "straight" / "law.npz"
    ).read_bytes()


@pytest.mark.slow
def test_ctrl_c_is_one_line(start, tmp_path):
    tiny.write_data(tmp_path / "data.npz", 30)
    config = write_config(tmp_path, posterior__steps=20, run__chunk=1)
    process = start(config, "--config.detectors=klip", "--workdir=run")
    wait_for(process, lambda: parts(tmp_path / "run") >= 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    lines = [line for line in err.splitlines() if line and "%|" not in line]
    assert lines == ["klip_jax: interrupted; the same command goes on where it was"]
    assert list((tmp_path / "run" / "claims").iterdir()) == []


@pytest.mark.slow
def test_two_commands_at_once_share_the_work(start, tmp_path):
    tiny.write_data(tmp_path / "data.npz", 12)
    config = write_config(tmp_path, run__chunk=1, calibration__draws=6)
    arguments = config, "--config.detectors=klip", "--workdir=run"
    for worker in [start(*arguments), start(*arguments)]:
        finish(worker)
    store = Store(tmp_path / "run")
    assert store.chunks_done() == list(range(24))
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
def test_images_that_fail_are_counted(start, tmp_path):
    y = np.zeros((3, 8, 23), np.float32)
    y[1] = 3e38
    np.savez(tmp_path / "y.npz", y=y)
    config = write_config(tmp_path, data__measurements=str(tmp_path / "y.npz"))
    process = start(config, "--config.detectors=klip", "--workdir=run")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "klip_jax: klip has no finite score and map of 1 of 3 images" in err
    assert "'y_0001' the first; it broke in the posterior, from step 0 on" in err


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on(start, tmp_path):
    recipe = {"train__recipe__steps": 60, "train__recipe__checkpoint_every": 3}
    config = write_config(tmp_path, **recipe)
    finish(start(config, "--mode=train", "--workdir=straight"))
    folder = tmp_path / "killed"
    again = (config, "--mode=train", "--workdir=killed")
    kill_when(start(*again), (folder / "checkpoints/6").is_dir)
    kill_when(start(*again), (folder / "checkpoints/12").is_dir)
    assert not (folder / "weights.safetensors").exists()
    out = finish(start(*again))
    assert "weights: killed/weights.safetensors" in out
    for name in ("train.csv", "weights.safetensors", "samples.png"):
        killed, straight = ((tmp_path / f / name) for f in ("killed", "straight"))
        assert killed.read_bytes() == straight.read_bytes(), name
    _, card = load_weights(folder / "weights.safetensors")
    assert card["training"]["step"] == 60
