"""What torch and diffusers themselves write, read by us without them.

They live in an environment of their own: KLIP_TORCH_PYTHON names its Python.
"""

import json
import os
import subprocess
from pathlib import Path

import golden
import jax
import numpy as np
import pytest

from klip_jax import hub
from klip_jax.config import build
from klip_jax.convert import edm, hub_folder, pickles
from klip_jax.priors.base import timestep_sigmas

pytestmark = pytest.mark.slow
CELEBAHQ = dict(
    sample_size=256,
    in_channels=3,
    out_channels=3,
    block_out_channels=[128, 128, 256, 256, 512, 512],
    down_block_types=["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
    layers_per_block=2,
    norm_num_groups=32,
    norm_eps=1e-6,
    attention_head_dim=None,
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
)
MODELS = {
    "plain_grey": dict(
        unet=dict(
            sample_size=16,
            in_channels=1,
            out_channels=1,
            block_out_channels=[16, 32],
            down_block_types=["DownBlock2D", "DownBlock2D"],
            up_block_types=["UpBlock2D", "UpBlock2D"],
            norm_num_groups=8,
            add_attention=False,
        ),
        scheduler=dict(beta_schedule="squaredcos_cap_v2"),
        pickled=True,
    ),
    "attention_colour": dict(
        unet=dict(
            sample_size=16,
            block_out_channels=[16, 32, 64],
            down_block_types=[
                "ResnetDownsampleBlock2D",
                "AttnDownBlock2D",
                "DownBlock2D",
            ],
            up_block_types=["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"],
            norm_num_groups=8,
            layers_per_block=1,
            attention_head_dim=8,
            resnet_time_scale_shift="scale_shift",
            downsample_type="resnet",
            upsample_type="resnet",
            mid_block_scale_factor=1.4,
            center_input_sample=True,
        ),
        scheduler=dict(prediction_type="v_prediction", beta_schedule="scaled_linear"),
    ),
    "ddpm_celebahq_256": dict(unet=CELEBAHQ, timesteps=[437]),
}


@pytest.fixture(scope="module")
def write():
    python = os.environ.get("KLIP_TORCH_PYTHON", "")
    if not python:
        pytest.skip("KLIP_TORCH_PYTHON is not set: a Python with torch and diffusers")

    def write(*arguments):
        script = Path(__file__).with_name("write_with_torch.py")
        command = [python, str(script), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return write


@pytest.mark.parametrize("name", MODELS)
def test_models_of_diffusers(name, write, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(MODELS[name]))
    write("diffusers", tmp_path / "model", tmp_path / "config.json")
    converted = hub_folder.load(tmp_path / "model")
    net, params = golden.network(converted)
    with np.load(tmp_path / "model/io.npz") as saved:
        x, out = golden.hwc(saved["x"]), golden.hwc(saved["out"])
        timesteps, abar = np.float32(saved["timesteps"]), saved["abar"]
    apply = jax.jit(net.apply)
    gaps = [
        golden.gap(apply(params, x, t), expected)
        for t, expected in zip(timesteps, out, strict=True)
    ]
    with capsys.disabled():
        print(f"\n{name}: {max(gaps):.1e}")
    assert max(gaps) <= 1e-4
    prior = converted.record["prior"]
    sigmas = timestep_sigmas(prior["betas"])
    # They take the product in float32.
    np.testing.assert_allclose(sigmas**2, (1 - abar) / abar, 1e-3, 1e-6)
    assert prior["name"].startswith("velocity" if "attention" in name else "epsilon")


def test_a_prior_from_a_folder(write, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(MODELS["plain_grey"]))
    write("diffusers", tmp_path / "model", tmp_path / "config.json")
    prior, record = hub.load(tmp_path / "model")
    assert record["image_shape"] == [16, 16, 1]
    # As the repositories from before safetensors have them.
    assert list((tmp_path / "model/pickled/unet").glob("*.bin"))
    pickled = hub_folder.load(tmp_path / "model/pickled").params
    jax.tree.map(np.testing.assert_array_equal, pickled, prior.params)
    x = np.random.default_rng(0).normal(size=(16, 16, 1)).astype(np.float32)
    x0 = jax.jit(lambda prior, x: prior(x, np.float32(0.5)))(prior, x)
    assert x0.shape == x.shape and bool(np.isfinite(x0).all())


def test_pickles_of_torch(write, tmp_path):
    settings = dict(width=8, multipliers=[1, 2], blocks=1, out_channels=1)
    net = build("nets", {"name": "song_unet.SongUNet", **settings})
    from test_converted import edm_arrays

    arrays, params = edm_arrays(net, (12, 12, 3), 16)
    filters = np.full((1, 1, 2, 2), 0.25, np.float32)
    arrays["model.enc.8x8_down.conv0.resample_filter"] = filters
    np.savez(tmp_path / "arrays.npz", **arrays)
    write("pickles", tmp_path)
    for name in ("edm_2.pkl", "edm_4.pkl", "state.pt", "state_old.pt"):
        loaded, record = edm.load(tmp_path / name, size=32, patch=12, pad=4)
        jax.tree.map(np.testing.assert_array_equal, loaded, params)
        assert record["prior"]["name"] == "patches.Patches"
    network = pickles.load(tmp_path / "edm_4.pkl")["ema"]
    loaded = pickles.arrays(network)
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
    with np.load(tmp_path / "odd.npz") as odd:
        for name in ("odd.pt", "odd_old.pt", "odd.pkl"):
            loaded = pickles.load(tmp_path / name)
            assert loaded.keys() == set(odd.files)
            for key in odd.files:
                np.testing.assert_array_equal(np.float32(loaded[key]), odd[key], key)
            assert loaded["half"].dtype == np.float16 and loaded["long"].dtype == int
