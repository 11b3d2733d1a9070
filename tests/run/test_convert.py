"""Converting from the command line: what is what, and what is refused."""

import json
import os
import pickle
import subprocess
import sys

import golden
import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from klip_jax import hub
from klip_jax.config import build
from klip_jax.convert import diffusers
from klip_jax.data import npz
from klip_jax.nets.ncsnpp import NCSNpp
from klip_jax.run.convert import Request, _default_target, convert

CONFIG = dict(
    sample_size=8,
    in_channels=1,
    out_channels=1,
    block_out_channels=[4],
    down_block_types=["DownBlock2D"],
    up_block_types=["UpBlock2D"],
    layers_per_block=1,
    norm_num_groups=2,
    add_attention=False,
)


@pytest.fixture
def folder(tmp_path):
    """A model of diffusers whose weights are all one third."""
    record = diffusers.convert(CONFIG, {}, {}).record
    place = tmp_path / "My-Model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(CONFIG))
    (place / "scheduler_config.json").write_text("{}")
    arrays = golden.torch_arrays(_thirds(record))
    save_file(arrays, place / "model.safetensors")
    return place


def _thirds(record):
    empty = hub.empty_params(build("nets", record["net"]), record["image_shape"])
    return jax.tree.map(lambda a: np.full(a.shape, 1 / 3, np.float32), empty)


def test_a_folder_becomes_a_file(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = convert(Request(str(folder)))
    assert str(path) == "checkpoints/my_model.safetensors"
    prior, record = hub.load(path)
    # All 24 bits of each weight are kept.
    assert {float(a.ravel()[0]) for a in jax.tree.leaves(prior.params)} == {
        float(np.float32(1 / 3))
    }
    assert record["data"] == "unknown" and record["source"] == str(folder)
    assert str(convert(Request(str(folder)), weights="w.safetensors")) == (
        "w.safetensors"
    )
    named = Request(str(folder), "mine/v.safetensors")
    assert str(convert(named, weights="w.safetensors")) == "mine/v.safetensors"
    with pytest.raises(ValueError, match=r"mine/v.safetensors exists; give another"):
        convert(named)


def test_the_size_of_score_sde_must_be_given(tmp_path):
    net = NCSNpp(4, (1, 2), 1)
    params = golden.random_params(net, (8, 8, 1))
    theirs = {}
    for name, array in traverse_util.flatten_dict(params["params"], sep="/").items():
        name = name.replace("BigGANBlock", "ResnetBlockBigGANpp")
        name = name.replace("combine_0", "Combine_0/Conv_0")
        name = name.replace("Attention_0/Dense", "AttnBlockpp_0/NIN")
        if "NIN" in name:
            name = name.replace("kernel", "W").replace("bias", "b")
        name = name.replace("frequencies", "GaussianFourierProjection_0/W")
        theirs[name] = array
    np.savez(tmp_path / "p.npz", **theirs)
    request = Request(str(tmp_path / "p.npz"), str(tmp_path / "w.safetensors"))
    with pytest.raises(ValueError, match="does not say how large its images are"):
        convert(request)
    prior, record = hub.load(convert(request._replace(size=8)))
    assert record["image_shape"] == [8, 8, 1] and record["prior"]["name"] == (
        "score.Score"
    )
    jax.tree.map(np.testing.assert_array_equal, prior.params, params)


def test_data_of_the_release(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 4, 6), np.uint8)
    labels = rng.integers(0, 3, (3, 4, 6), np.uint8)
    np.save(tmp_path / "chaos_id.npy", {"imgs": images})
    np.save(tmp_path / "chaos_ood_tumor.npy", {"imgs": images, "labels": labels})
    np.save(tmp_path / "chaos_ood_star.npy", {"imgs": images, "labels": labels == 1})
    np.save(tmp_path / "faces_scar.npy", {"imgs": images, "masks": images})
    names = ("chaos_id", "chaos_ood_tumor", "chaos_ood_star", "faces_scar")
    source = ",".join(str(tmp_path / f"{name}.npy") for name in names)
    path = convert(Request(source, str(tmp_path / "all.npz")), weights="not this")
    groups = ("id", "tumor", "star", "scar")
    found = npz.load(file=str(path), root="/", groups=groups)
    assert found.groups == tuple(np.repeat(groups, 3))
    np.testing.assert_allclose(found.images[3:6, ..., 0], images / 255, atol=1e-6)
    expected = [np.zeros_like(labels), labels == 2, labels == 1, images > 127]
    np.testing.assert_array_equal(found.masks, np.concatenate(expected) > 0)
    np.testing.assert_array_equal(found.body[3:6], labels > 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"img": 1}, "holds no dict with 'imgs'"),
        ({"imgs": np.zeros((2, 3), np.uint8)}, "imgs must be"),
        (
            {"imgs": np.zeros((1, 2, 2), np.uint8), "labels": np.zeros((1, 3, 3))},
            "masks of",
        ),
    ],
)
def test_other_data_is_refused(content, message, tmp_path):
    np.save(tmp_path / "a_id.npy", content)
    with pytest.raises(ValueError, match=message):
        convert(Request(str(tmp_path / "a_id.npy"), str(tmp_path / "x.npz")))
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "convert what"),
        ("absent.pkl", "absent.pkl: no such file or folder"),
        ("deep/er/absent", "no such file or folder"),
        ("one_id.npy,two_id.npy", "one_id.npy: no such file"),
    ],
)
def test_what_is_not_there(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=message):
        convert(Request(source))
    assert list(tmp_path.iterdir()) == []


def test_a_hub_id_without_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface_hub"):
        convert(Request("google/ddpm-celebahq-256"))


@pytest.mark.parametrize(
    ("source", "revision", "asked"),
    [
        ("google/small", "abc", "abc"),
        ("google/small", "", None),
        ("google/ddpm-celebahq-256", "", "cd5c944777ea2668051904ead6cc120739b86c4d"),
        ("google/ddpm-celebahq-256", "abc", "abc"),
    ],
)
def test_a_hub_id_is_downloaded_and_its_commit_kept(
    folder, tmp_path, monkeypatch, source, revision, asked
):
    class Hub:
        @staticmethod
        def list_repo_files(repo_id, revision):
            return ["config.json", "diffusion_pytorch_model.bin"]

        @staticmethod
        def snapshot_download(repo_id, revision, allow_patterns):
            assert (repo_id, revision) == (source, asked)
            assert allow_patterns == ["*.json", "*.bin"]
            return str(folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    path = convert(Request(source, revision=revision, target="x.safetensors"))
    _, record = hub.load(path)
    assert record["source"] == source and record["revision"] == "My-Model"


@pytest.mark.slow
def test_the_command_line(folder, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "klip_jax.main", "--mode=convert", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = run(f"--source={folder}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder} is now checkpoints/my_model.safetensors\n"
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps(os.getcwd))
    for arguments, words in [
        ([], "convert what? give --source"),
        (["--source=hostile.pkl"], "not executed: it wants posix.getcwd"),
        (["--source=absent"], "absent: no such file or folder"),
    ]:
        refused = run(*arguments)
        assert refused.returncode == 2 and refused.stdout == ""
        (line,) = refused.stderr.splitlines()
        assert line.startswith("klip_jax: ") and words in line


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("me/ddpm-v1.0", "ddpm_v1_0"),
        ("some/model.v1.5", "model_v1_5"),
        ("модель", "модель"),
        ("Gesichter (größer).pt", "gesichter_größer"),
        ("a/---", "converted"),
    ],
)
def test_names_of_files_that_are_written(source, stem):
    assert _default_target([source], False) == f"checkpoints/{stem}.safetensors"
