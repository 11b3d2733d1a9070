"""Weights are found by name from anywhere, and nothing broken in them passes."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

from klip_jax import hub
from klip_jax.checkpoint import save_weights
from klip_jax.classifiers.resnet import ResNet


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty directory to be in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KLIP_HOME", raising=False)
    return tmp_path


def test_the_package_and_its_checkout_are_found_from_anywhere(empty):
    prior, record = hub.load("phantom_ct")
    assert record["image_shape"] == [64, 64, 1]
    assert record["prior"]["name"] == "edm.EDM" and prior.levels.shape == (16,)
    assert hub.find("abdomen_ct_64").name == "abdomen_ct_64.safetensors"
    assert hub.load("abdomen_ct_64")[1]["sha256"] == hub.sha256(
        hub.find("abdomen_ct_64")
    )


def test_a_file_a_folder_and_a_home_of_ones_own(empty, monkeypatch):
    path = tiny.write_weights(empty / "deep" / "mine.v1.safetensors")
    for name in (path, str(path), "deep/mine.v1.safetensors"):
        assert hub.find(name).samefile(path)
    with pytest.raises(
        FileNotFoundError, match=r"'mine.v1': no such weights in .*conv"
    ):
        hub.find("mine.v1")
    monkeypatch.setenv("KLIP_HOME", str(path.parent))
    assert hub.find("mine.v1") == path
    (empty / "checkpoints").mkdir()
    here = tiny.write_weights(empty / "checkpoints/mine.v1.safetensors")
    assert hub.find("mine.v1").samefile(here)  # before that of home
    with pytest.raises(FileNotFoundError, match=r"deep/x.safetensors: no such weights"):
        hub.find("deep/x.safetensors")


def test_a_hub_id_is_downloaded(empty, monkeypatch):
    asked = []
    monkeypatch.setattr(hub.huggingface, "download", lambda n: asked.append(n) or empty)
    hub.find("google/ddpm-v1.0")
    assert asked == ["google/ddpm-v1.0"]


def test_laws_lie_beside_their_weights(empty):
    path = tiny.write_weights(empty / "checkpoints/own.safetensors")
    for name in ("own_law", "own_blur_law", "owner_law"):
        np.savez(empty / f"checkpoints/{name}.npz")
    names = ["own_law.npz", "own_blur_law.npz"]
    for name in ("own", path, "checkpoints/own.safetensors"):
        assert [law.name for law in hub.law_paths(name)] == names
    assert [law.name for law in hub.law_paths("own_blur")] == ["own_blur_law.npz"]
    law = empty / "checkpoints/own_law.npz"
    assert hub.law_paths(law) == [law] and hub.law_paths("absent.npz") == []
    assert hub.law_paths("nothing") == []


def test_weights_are_those_of_their_card(empty):
    path = tiny.write_weights(empty / "w.safetensors")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert hub.load(path)[1]["sha256"] == digest
    (empty / "w.md").write_text(f"| sha256 | {digest} |\n")
    hub.load(path)
    (empty / "w.md").write_text(f"| sha256 | {'0' * 64} |\n")
    with pytest.raises(
        ValueError, match=r"w\.safetensors: its SHA-256 .* w\.md says 0"
    ):
        hub.load(path)


@pytest.mark.parametrize("name", ["phantom_ct", "abdomen_ct_64", "brain_mri_64"])
def test_every_card_of_ours_tells_a_digest(name):
    assert "sha256 |" in hub.find(name).with_suffix(".md").read_text()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_leaf(empty, value):
    params = tiny.random_params()
    leaf = params["params"]["Conv_0"]["kernel"]
    leaf[0, 0, 0, 0] = value
    path = tiny.write_weights(empty / "w.safetensors", params)
    words = rf"1 of {leaf.size} numbers of the weights params/Conv_0/kernel are NaN"
    with pytest.raises(ValueError, match=words):
        hub.load(path)


EDM = tiny.PRIOR
VP = dict(name="epsilon.Epsilon")
TABLE = tiny.TABLE
BAD = {
    "net": (dict(net=None), "the record's net must hold a name"),
    "prior": (dict(prior={"betas": [0.1]}), "the record's prior must hold a name"),
    "shape": (dict(image_shape=[16, 16]), "image_shape must be three whole numbers"),
    "large": (dict(image_shape=[16, 16, 1 << 20]), "image_shape must be three whole"),
    "float": (dict(image_shape=[16, 16, 1.5]), "image_shape must be three whole"),
    "spread": (dict(prior=EDM | dict(sigma_data=-1.0)), "sigma_data must be positive"),
    "nan": (dict(prior=EDM | dict(sigma_data=float("nan"))), "sigma_data must be fin"),
    "text": (dict(prior=EDM | dict(sigma_data="a")), "sigma_data must be positive"),
    "betas": (dict(prior=VP | dict(betas=[0.1, 1.5])), r"betas must all lie in \(0, 1"),
    "no betas": (dict(prior=VP | dict(betas=[])), r"betas must all lie in \(0, 1"),
    "nan beta": (dict(prior=VP | dict(betas=[float("nan")])), "betas must be finite"),
    "errors": (dict(errors=[1]), "errors must hold a table"),
    "no table": (dict(errors={"levels": [1.0]}), "errors.errors must be numbers"),
    "huge": (dict(errors=TABLE | dict(errors=[1e-4, 1e-3, 1e308, 1])), "errors.errors"),
    "negative": (dict(errors=TABLE | dict(test=[-1, 1, 1, 1])), "errors.test must be"),
    "short": (dict(errors=TABLE | dict(train=[1e-3])), "errors.train must be 4, one a"),
    "order": (dict(errors=TABLE | dict(levels=[1, 2, 2, 3])), "levels must increase"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_record_that_cannot_be_is_refused(empty, case):
    changes, words = BAD[case]
    path = tiny.write_weights(empty / "w.safetensors", **changes)
    with pytest.raises(ValueError, match=f"w.safetensors.*{words}"):
        hub.load(path)


def test_other_files_are_no_weights(empty):
    save_file({"a": np.zeros(3)}, empty / "w.safetensors", {"record": json.dumps({})})
    with pytest.raises(ValueError, match="the record's net must hold a name"):
        hub.load(empty / "w.safetensors")
    path = tiny.write_weights(empty / "v.safetensors", net=dict(name="vit.ViT"))
    with pytest.raises(ValueError, match="nets: no module 'vit'"):
        hub.load(path)
    wider = tiny.NET | dict(channels=(8, 16))
    path = tiny.write_weights(empty / "u.safetensors", net=wider)
    with pytest.raises(ValueError, match="weights do not fit the network"):
        hub.load(path)


def test_shapes_of_parameters_cost_nothing():
    shapes = jax.tree.leaves(tiny.random_params())
    assert sum(leaf.size for leaf in shapes) < 30_000


def test_a_classifier_is_no_prior_and_a_prior_no_classifier(empty):
    net = dict(name="resnet.ResNet", stages=[1], width=2, classes=3)
    record = dict(net=net, image_shape=[8, 8, 3])
    shapes = jax.eval_shape(
        ResNet((1,), 2, 3).init, jax.random.key(0), np.zeros((8, 8, 3), np.float32)
    )
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
    save_weights("names.safetensors", zeros, record)
    classifier, told = hub.load_classifier("names.safetensors")
    assert classifier.classes == 3 and classifier.image_shape == (8, 8, 3)
    assert told["sha256"] == hub.sha256(empty / "names.safetensors")
    assert classifier.logits(jnp.zeros((8, 8, 3))).shape == (3,)
    with pytest.raises(ValueError, match="of a classifier, not of a prior: give"):
        hub.load("names.safetensors")
    with pytest.raises(ValueError, match="weights of a prior, not of a classifier"):
        hub.load_classifier("phantom_ct")
    with pytest.raises(FileNotFoundError, match=r"classifier.weights='nope': no such"):
        hub.load_classifier("nope")
    with pytest.raises(ValueError, match="stem_conv/kernel is nothing"):
        del zeros["params"]["stem_conv"]
        save_weights("less.safetensors", zeros, record)
        hub.load_classifier("less.safetensors")
    with pytest.raises(ValueError, match="record's image_shape must be three whole"):
        save_weights("more.safetensors", zeros, record | {"image_shape": [8, 8]})
        hub.load_classifier("more.safetensors")


def test_the_shipped_classifier_is_found_by_its_name(empty):
    classifier, record = hub.load_classifier("cifar10_resnet18")
    assert classifier.classes == 10 and classifier.image_shape == (32, 32, 3)
    assert record["accuracy"]["test"] > 0.9
