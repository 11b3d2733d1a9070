"""Weights of others become priors: layouts, names, what is refused."""

import functools
import json
import pickle

import golden
import jax
import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors.numpy import save_file

from klip_jax import hub
from klip_jax.checkpoint import save_weights
from klip_jax.config import build
from klip_jax.convert import diffusers, edm, hub_folder, huggingface, score_sde
from klip_jax.nets.ncsnpp import NCSNpp
from klip_jax.priors.base import timestep_sigmas

UNET = dict(
    sample_size=8,
    in_channels=3,
    out_channels=3,
    block_out_channels=[8, 16],
    down_block_types=["DownBlock2D", "AttnDownBlock2D"],
    up_block_types=["AttnUpBlock2D", "UpBlock2D"],
    layers_per_block=1,
    norm_num_groups=4,
    attention_head_dim=None,
    act_fn="silu",
    downsample_padding=0,
    class_embed_type=None,
)
SCHEDULER = dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
SCHEDULER |= dict(num_train_timesteps=10)


@pytest.fixture
def folder(tmp_path):
    """A model in Hugging Face layout with random weights, and its parameters."""
    net = diffusers.convert(UNET, SCHEDULER, {}).record["net"]
    params = golden.random_params(build("nets", net), (8, 8, 3))
    arrays = golden.torch_arrays(params)
    (tmp_path / "unet").mkdir()
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "unet/config.json").write_text(json.dumps(UNET))
    schedule = tmp_path / "scheduler/scheduler_config.json"
    schedule.write_text(json.dumps(SCHEDULER))
    save_file(arrays, tmp_path / "unet/diffusion_pytorch_model.safetensors")
    return tmp_path, params


def check_same(loaded, expected):
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)


def test_a_folder_of_diffusers(folder):
    folder, params = folder
    loaded, record = hub_folder.load(folder)
    check_same(loaded, params)
    assert record["image_shape"] == [8, 8, 3]
    assert record["prior"]["name"] == "epsilon.Epsilon"
    assert record["licence"].startswith("unknown")
    np.testing.assert_allclose(record["prior"]["betas"], np.linspace(1e-4, 0.02, 10))
    golden.network((loaded, record))


def test_it_is_a_prior_directly_and_once_saved(folder, tmp_path):
    folder, params = folder
    direct, record = hub.load(folder)
    save_weights(tmp_path / "w.safetensors", *hub_folder.load(folder), dtype="float32")
    saved, card = hub.load(tmp_path / "w.safetensors")
    assert card | {"sha256": ""} == record  # a folder is no single file
    assert jax.tree.structure(saved) == jax.tree.structure(direct)
    check_same(saved.params, params)
    check_same(direct.params, params)


def test_flat_folders_and_old_names(folder, tmp_path):
    folder, params = folder
    arrays = {}
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name, array in golden.torch_arrays(params).items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        arrays[name] = array
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "config.json").write_text(json.dumps(UNET))
    (flat / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    save_file(arrays, flat / "model.safetensors")
    check_same(hub_folder.load(flat).params, params)


def test_pickled_weights_execute_nothing(folder):
    folder, params = folder
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.unlink()
    pickled = weights.with_suffix(".bin")
    pickled.write_bytes(pickle.dumps(golden.torch_arrays(params)))
    check_same(hub_folder.load(folder).params, params)
    pickled.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"not executed: it wants os\.system"):
        hub_folder.load(folder)


@pytest.mark.parametrize(
    ("unet", "scheduler", "message"),
    [
        (dict(act_fn="gelu"), {}, "act_fn='gelu'"),
        (dict(class_embed_type="timestep"), {}, "class_embed_type='timestep'"),
        (dict(time_embedding_type="fourier"), {}, "time_embedding_type='fourier'"),
        (dict(sample_size=None), {}, "no sample_size"),
        ({}, dict(prediction_type="sample"), "prediction_type='sample'"),
        ({}, dict(beta_schedule="sigmoid"), "beta_schedule='sigmoid'"),
        ({}, dict(rescale_betas_zero_snr=True), "no finite noise level"),
    ],
)
def test_what_we_do_not_have_is_refused(unet, scheduler, message):
    with pytest.raises(ValueError, match=message):
        diffusers.convert(UNET | unet, SCHEDULER | scheduler, {}, "somewhere")


def test_schedules():
    cosine = diffusers.betas(dict(beta_schedule="squaredcos_cap_v2"))
    sigmas = timestep_sigmas(cosine)
    # abar(t) = cos^2 up to the cap: at the middle timestep nearly cos^2(pi / 4).
    assert len(cosine) == 1000 and abs(sigmas[499] - 1.012) < 0.02
    scaled = diffusers.betas(dict(beta_schedule="scaled_linear"))
    np.testing.assert_allclose(scaled[0], 1e-4)
    assert scaled[500] < np.linspace(1e-4, 0.02, 1000)[500]
    assert diffusers.betas(dict(trained_betas=[0.1, 0.2])) == [0.1, 0.2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("unet/config.json", "{", "not a JSON file"),
        ("unet/config.json", "{}", "not the config of a UNet2DModel"),
        ("scheduler/scheduler_config.json", None, "it has the noise levels"),
        ("unet/diffusion_pytorch_model.safetensors", "{", "not a readable"),
        ("unet/diffusion_pytorch_model.safetensors", None, "no weights there"),
    ],
)
def test_broken_folders(folder, name, content, message):
    folder, _ = folder
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises((ValueError, OSError), match=message):
        hub_folder.load(folder)


def test_without_the_hub(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        huggingface.download("google/ddpm-celebahq-256")


NCSN = NCSNpp(8, (1, 2, 2), 1, attention=(1,))


@functools.cache
def ncsn_params():
    return golden.random_params(NCSN, (32, 32, 1))


def score_sde_params(norm_axes=1):
    """Random parameters of `NCSN` with the names of score_sde, and ours."""
    params = ncsn_params()
    theirs = {}
    for name, array in traverse_util.flatten_dict(params["params"], sep="/").items():
        if "Attention" in name:
            name = name.replace("Attention", "AttnBlockpp").replace("Dense", "NIN")
            if "NIN" in name:
                name = name.replace("kernel", "W").replace("bias", "b")
        name = name.replace("BigGANBlock", "ResnetBlockBigGANpp")
        if name.startswith("combine_"):
            name = name.replace("combine", "Combine").replace("/", "/Conv_0/")
        name = name.replace("frequencies", "GaussianFourierProjection_0/W")
        if "GroupNorm" in name:
            array = array.reshape((1,) * (norm_axes - 1) + array.shape)
        theirs[name] = array
    return theirs, params


@pytest.mark.parametrize("norm_axes", [1, 4])
def test_both_layouts_of_score_sde(norm_axes, tmp_path):
    theirs, params = score_sde_params(norm_axes)
    np.savez(tmp_path / "p.npz", **theirs)
    loaded, record = score_sde.load(tmp_path / "p.npz", 32)
    check_same(loaded, params)
    net = dict(record["net"])
    assert net.pop("name") == "ncsnpp.NCSNpp"
    assert net == dict(
        width=8, multipliers=[1, 2, 2], blocks=1, attention=[1], combine="sum"
    )
    golden.network((loaded, record))


def test_training_states_of_score_sde(tmp_path):
    theirs, params = score_sde_params(4)
    tree = traverse_util.unflatten_dict(theirs, sep="/")
    older = jax.tree.map(np.zeros_like, tree)
    states = {
        "ema": {"params_ema": tree, "optimizer": {"target": older}, "step": 3},
        "target": {"optimizer": {"target": {"params": tree}}},
        "params": {"params": tree},
    }
    for name, state in states.items():
        path = tmp_path / name
        path.write_bytes(serialization.msgpack_serialize(state))
        check_same(score_sde.load(path, 32).params, params)


def test_orbax_folders(tmp_path):
    import orbax.checkpoint as ocp

    theirs, params = score_sde_params()
    tree = traverse_util.unflatten_dict(theirs, sep="/")
    state = {"params_ema": jax.device_put(tree, jax.devices()[-1]), "step": 3}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_1", state)
    check_same(score_sde.load(tmp_path / "checkpoint_1", 32).params, params)


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        (lambda p: p.pop("Conv_0/kernel"), 32, "not an NCSN[+][+]: it has no Conv_0"),
        (lambda p: None, 256, "16 pixels and the middle"),
        (
            lambda p: p.update({"ResnetBlockBigGANpp_99/x": np.zeros(1)}),
            32,
            "are no NCSN",
        ),
    ],
)
def test_other_networks_are_refused(change, size, message, tmp_path):
    theirs, _ = score_sde_params()
    change(theirs)
    np.savez(tmp_path / "p.npz", **theirs)
    with pytest.raises(ValueError, match=message):
        score_sde.load(tmp_path / "p.npz", size)


def test_broken_checkpoints(tmp_path):
    (tmp_path / "checkpoint_1").write_bytes(b"\xc1 no msgpack")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        score_sde.load(tmp_path / "checkpoint_1", 32)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        score_sde.load(tmp_path / "folder", 32)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        score_sde.load(tmp_path / "absent", 32)


def edm_arrays(net, shape, finest):
    """Random parameters of a SongUNet with the names of EDM, and ours."""
    params = golden.random_params(net, shape)
    layers, theirs = dict(params["params"]), {}
    if "frequencies" in layers:
        theirs["model.map_noise.freqs"] = layers.pop("frequencies")
    for name, array in golden.torch_arrays({"params": layers}).items():
        parts = name.split("_", 2)
        if parts[0] in ("enc", "dec"):
            side = finest >> int(parts[1])
            name = f"{parts[0]}.{side}x{side}_{parts[2]}"
        theirs[f"model.{name}"] = array
    return theirs, params


SONGS = {
    "ddpmpp": dict(width=8, multipliers=[1, 2], blocks=2, attention=[1]),
    "ncsnpp": dict(
        width=8,
        multipliers=[1, 2, 2],
        blocks=1,
        attention=[],
        embedding="fourier",
        noise_width=2,
        encoder="residual",
        taps=[1.0, 3.0, 3.0, 1.0],
    ),
}


@pytest.mark.parametrize("name", SONGS)
def test_edm(name, tmp_path):
    net = build("nets", {"name": "song_unet.SongUNet", **SONGS[name]})
    theirs, params = edm_arrays(net, (16, 16, 3), 16)
    if name == "ncsnpp":
        taps = np.array([1, 3, 3, 1]) / 8
        theirs["model.enc.8x8_down.conv0.resample_filter"] = np.float32(
            np.outer(taps, taps)[None, None]
        )
    theirs["model.map_augment.weight"] = np.zeros((8, 9), np.float32)
    np.savez(tmp_path / "edm.npz", **theirs)
    loaded, record = edm.load(tmp_path / "edm.npz")
    check_same(loaded, params)
    assert record["prior"] == {"name": "edm.EDM", "sigma_data": 0.5}
    assert record["image_shape"] == [16, 16, 3]
    known = {k: record["net"][k] for k in SONGS[name]}
    assert known == SONGS[name]
    golden.network((loaded, record))


def test_padis(tmp_path):
    settings = dict(width=8, multipliers=[1, 2], blocks=1, out_channels=1)
    net = build("nets", {"name": "song_unet.SongUNet", **settings})
    theirs, params = edm_arrays(net, (12, 12, 3), 16)
    save_file(theirs, tmp_path / "padis.safetensors")
    loaded = edm.load(tmp_path / "padis.safetensors", size=32, patch=12, pad=4)
    check_same(loaded.params, params)
    assert loaded.record["image_shape"] == [32, 32, 1]
    assert loaded.record["net_shape"] == [12, 12, 3]
    save_weights(tmp_path / "w.safetensors", *loaded, dtype="float32")
    prior, _ = hub.load(tmp_path / "w.safetensors")
    assert prior.patch == 12 and prior.pad == 4
    check_same(prior.params, params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.map_label.weight": np.zeros((8, 10))}, "with classes"),
        ({"model.map_layer1.weight": None}, "other names"),
        ({"model.enc.16x16_conv.weight": None}, "ends are missing"),
        (
            {"model.enc.16x16_block0.affine.weight": np.zeros((16, 32))},
            "adaptive scale",
        ),
        ({"model.enc.16x16_conv.weight": np.zeros((8, 7, 3, 3))}, "7 channels in"),
    ],
)
def test_other_networks_of_edm_are_refused(change, message):
    net = build("nets", {"name": "song_unet.SongUNet", **SONGS["ddpmpp"]})
    theirs, _ = edm_arrays(net, (16, 16, 3), 16)
    theirs = {k: v for k, v in (theirs | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        edm.convert(theirs, "somewhere")


@pytest.mark.slow
def test_empty_shapes_need_no_memory():
    """The full architecture of google/ddpm-celebahq-256 can be named at no cost."""
    config = UNET | dict(
        sample_size=256,
        block_out_channels=[128, 128, 256, 256, 512, 512],
        down_block_types=["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
        layers_per_block=2,
        norm_num_groups=32,
    )
    net = build("nets", diffusers.convert(config, SCHEDULER, {}).record["net"])
    leaves = jax.tree.leaves(hub.empty_params(net, (256, 256, 3)))
    assert sum(leaf.size for leaf in leaves) == 113_673_219
