"""The command that users of google/ddpm-celebahq-256 know, with random weights."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import golden
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from klip_jax.config import build
from klip_jax.run.store import Store

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "celeba_inpaint.py"
STEPS = ("posterior.samples=3", "posterior.steps=2", "detectors.klip.level_count=2")


def run(folder, *arguments):
    command = [sys.executable, "-m", "klip_jax.main", f"--config={CONFIG}", *arguments]
    environment = os.environ | {"KLIP_DATA": str(folder)}
    environment.pop("XLA_FLAGS", None)
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment
    )


def write_model(folder):
    """Write the full architecture in Hugging Face layout, with random weights."""
    spec = importlib.util.spec_from_file_location("celeba", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.get_config().train.net.to_dict()
    params = golden.random_params(build("nets", net), (256, 256, 3))
    config = {k: v for k, v in net.items() if k != "name"}
    config |= dict(sample_size=256, in_channels=3, out_channels=3, act_fn="silu")
    for name in ("unet", "scheduler"):
        (folder / name).mkdir(parents=True)
    (folder / "unet/config.json").write_text(json.dumps(config))
    (folder / "scheduler/scheduler_config.json").write_text("{}")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file(golden.torch_arrays(params), weights)


def write_image(folder):
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (256, 256, 3), np.uint8)).save(
        folder / "face.png"
    )


@pytest.mark.slow
def test_what_is_missing_is_said(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "celeba_hq_256: no such folder; set --config.data.root" in line
    write_image(tmp_path / "celeba_hq_256")
    (line,) = run(tmp_path).stderr.splitlines()
    assert line.startswith("klip_jax: prior.weights='ddpm_celebahq_256': no such wei")
    assert line.endswith("or convert those of others with --mode=convert")


@pytest.mark.slow
def test_a_folder_in_hugging_face_layout_runs(tmp_path):
    write_model(tmp_path / "model")
    weights = f"--config.prior.weights={tmp_path / 'model'}"
    write_image(tmp_path / "celeba_hq_256")
    few = [f"--config.{setting}" for setting in STEPS]
    done = run(tmp_path, weights, *few, "--workdir=few")
    assert done.returncode == 0, done.stderr
    assert "1 to do of 1" in done.stdout
    store = Store(tmp_path / "few")
    for name in ("klip/heatmap", "reconstruction/mean", "reconstruction/std"):
        assert np.isfinite(store.array(name)[:]).all(), name
    for name in ("score", "misfit"):
        assert np.isfinite(store.scores([name])[name]).all(), name
    assert (tmp_path / "few/report.html").is_file()
