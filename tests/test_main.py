"""The command line, as a user starts it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

from klip_jax.checkpoint import load_weights
from klip_jax.results import read_images

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
    return {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | own


@pytest.fixture
def start(tmp_path, environment):
    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "klip_jax.main", *arguments],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def write_config(folder, **changes):
    path = folder / "small.py"
    path.write_text(CONFIG % json.dumps(tiny.settings(folder, **changes)))
    return f"--config={path}"


def refused(process, words):
    """Check status 2, one line on stderr that says `words`, and nothing on stdout."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("klip_jax: ") and words in line, line


def test_an_unknown_setting(start, tmp_path):
    refused(
        start("--config.estimator.sample=9", "--workdir=run"),
        'the config has no setting sample. Did you mean "samples" instead',
    )
    assert list(tmp_path.iterdir()) == []


def test_a_window_outside_the_schedule(start, tmp_path):
    config = write_config(tmp_path)
    process = start(config, "--config.estimator.window=(0.04, 30.0)", "--workdir=run")
    refused(process, "window=(0.04, 30.0): need sigma_min <= lowest")
    assert not (tmp_path / "run").exists()


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
        (["--config=absent.py"], "--config=absent.py: no such file"),
        ([f"--config={FACES}:clear"], "faces.py:clear: choose one of ['blur', 'inpa"),
        (["--config.noise_std=loud"], "could not convert string to float: 'loud'"),
        (["--mode=guess"], "should be one of <detect|train|calibrate|report|convert>"),
        (["--config.prior.weights=w"], "w: no such weights; train them"),
        (["--mode=report", "--workdir=none"], "none/config.json: no run here"),
        (["stray"], "what is 'stray'? settings are --config.a=b"),
    ],
)
def test_bad_arguments(start, tmp_path, arguments, words):
    refused(start(*arguments), words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_help(start):
    out, err = (process := start("--help")).communicate(timeout=300)
    assert process.returncode == 0 and err == ""
    assert "--mode=calibrate" in out and "python -m klip_jax.main" in out


def finish(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def kill_when(process, condition):
    """SIGKILL `process` as soon as `condition` holds."""
    limit = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_detection_that_was_killed_goes_on(start, tmp_path):
    n = 30
    tiny.write_data(tmp_path / "data.npz", n)
    config = write_config(tmp_path, calibration__draws=20, estimator__steps=20)
    out = finish(start(config, "--workdir=straight"))
    assert f"{2 * n} to do of {2 * n}" in out and "20 draws of the model" in out
    for name in ("scores.csv", "metrics.json", "report.html", "config.json"):
        assert (tmp_path / "straight" / name).is_file()

    folder = tmp_path / "killed"
    again = (config, "--workdir=killed")
    kill_when(start(*again), (folder / "reference_law.npz").is_file)
    kill_when(start(*again), lambda: len([*(folder / "maps").glob("*.npz")]) >= 3)
    done = len([*(folder / "maps").glob("*.npz")])
    assert 3 <= done < 2 * n
    out = finish(start(*again))
    assert f"{2 * n - done} to do of {2 * n}" in out and "law   cached" in out

    def scores(name):
        with (tmp_path / name / "scores.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    assert scores("killed") == scores("straight") and len(scores("killed")) == 2 * n
    for a, b in zip(
        read_images(folder), read_images(tmp_path / "straight"), strict=True
    ):
        assert a.arrays.keys() == b.arrays.keys()
        for name, array in a.arrays.items():
            np.testing.assert_array_equal(array, b.arrays[name], err_msg=name)
    metrics = [
        json.loads((tmp_path / name / "metrics.json").read_text())
        for name in ("killed", "straight")
    ]
    for found in metrics:
        found.pop("cost", None)  # seconds
    assert metrics[0] == metrics[1]


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
