"""A run that names a classifier: its detectors, its law, and what does not fit."""

import dataclasses
import json

import fake_run
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import hub
from klip_jax.classifiers.base import Classifier
from klip_jax.classifiers.resnet import ResNet
from klip_jax.run import detect, job, law
from klip_jax.run.store import Store

SETTINGS = dict(
    classifier=dict(weights="names"),
    detectors=dict(
        msp=dict(name="classifier_logits.MSP"),
        knn=dict(name="classifier_features.KNN", k=2),
        bright=dict(name="fake_run:Brightness"),
    ),
    main="msp",
)


@pytest.fixture(scope="module")
def classifier():
    net = ResNet((1,), width=4, classes=3, mean=(0.5,), std=(0.25,))
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(fake_run.SHAPE))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.1, 1.0, leaf.shape), jnp.float32), shapes
    )
    return Classifier(net, variables, fake_run.SHAPE)


@pytest.fixture(autouse=True)
def weights(monkeypatch, classifier):
    fake_run.install(monkeypatch)
    monkeypatch.setattr(hub, "load_classifier", lambda name: (classifier, {}))


def test_a_job_has_it(tmp_path):
    made = job.prepare(fake_run.settings(**SETTINGS), tmp_path / "run")
    assert made.scene.classifier.classes == 3
    about = json.loads((tmp_path / "run/config.json").read_text())["detectors"]
    assert list(about) == ["msp", "knn", "bright"]
    assert [a["classifier_calls"] for a in about.values()] == [1, 1, 0]
    assert about["knn"]["fits"] and not about["msp"]["has_map"]


@pytest.mark.slow
def test_its_detectors_run_from_a_config(tmp_path):
    made = job.prepare(fake_run.settings(**SETTINGS), tmp_path / "run")
    viewer = made.viewer()
    references = law.references(made, viewer, progress=False)
    detect.detect(made, references, viewer, progress=False)
    scores = Store(tmp_path / "run").scores(names=["detector", "score", "p_value"])
    told = scores["detector"] == "msp"
    assert np.sum(told) == 10 and np.all(np.isfinite(scores["p_value"]))
    assert len(np.unique(scores["score"][told])) == 10


def test_another_classifier_is_another_law(tmp_path, classifier, monkeypatch):
    settings = fake_run.settings(**SETTINGS)
    before = job.prepare(settings, tmp_path / "one")
    other = dataclasses.replace(
        classifier, variables=jax.tree.map(lambda a: 2 * a, classifier.variables)
    )
    monkeypatch.setattr(hub, "load_classifier", lambda name: (other, {}))
    after = job.prepare(settings, tmp_path / "other")
    assert before.digests["classifier"] != after.digests["classifier"]
    laws = before.fingerprints.draws, after.fingerprints.draws
    changed = [name for name in laws[0] if laws[0][name] != laws[1][name]]
    assert changed == ["msp", "knn"]  # those that ask it


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(classifier=dict(weights=3)), "classifier.weights=3: give a name"),
        (dict(classifier=dict(name="x")), "classifier: no setting 'name'"),
        (dict(classifier=dict(weights="")), "MSP needs 'classifier', but none is"),
    ],
)
def test_what_cannot_be_is_told(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        job.prepare(fake_run.settings(**SETTINGS | changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_classifier_of_other_images(tmp_path, monkeypatch, classifier):
    other = dataclasses.replace(classifier, image_shape=(32, 32, 3))
    monkeypatch.setattr(hub, "load_classifier", lambda name: (other, {}))
    words = r"images of \(32, 32, 3\), but the pictures are \(8, 8, 1\)"
    with pytest.raises(ValueError, match=words):
        job.prepare(fake_run.settings(**SETTINGS), tmp_path / "run")
