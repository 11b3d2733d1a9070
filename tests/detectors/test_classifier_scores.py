"""Scores of a classifier: OpenOOD's own numbers, and what keeps them apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import assert_ok
from lab import golden_openood

from klip_jax.classifiers.base import Classifier
from klip_jax.classifiers.resnet import ResNet
from klip_jax.detectors.base_classifier import Seen
from klip_jax.detectors.classifier_features import KNN, ViM, origin
from klip_jax.detectors.classifier_logits import GEN, MSP, Energy
from klip_jax.types import Given


@pytest.fixture
def saved(shared_data):
    return golden_openood.opened(shared_data / "golden")


@pytest.mark.parametrize("name", golden_openood.SCORES)
def test_scores_and_metrics_in_both_polarities_are_openood_s(saved, name):
    assert_ok(golden_openood.of_detector(saved, name))


def test_metrics_where_scores_tie(saved):
    assert_ok(golden_openood.of_ties(saved))


def test_features_and_their_head_give_the_logits(saved):
    # Of the saved labels 24 are wrong on purpose; predictions are not.
    logits = saved["feat_id"] @ saved["fc_weight"].T + saved["fc_bias"]
    np.testing.assert_allclose(logits, saved["logits_id"], atol=2e-5)
    np.testing.assert_array_equal(logits.argmax(1), saved["pred_id"])
    assert np.sum(saved["pred_id"] != saved["label_id"]) >= 24


def test_at_the_origin_all_logits_are_zero(saved):
    weight, bias = jnp.asarray(saved["fc_weight"]).T, jnp.asarray(saved["fc_bias"])
    u = origin(weight, bias)
    np.testing.assert_allclose(u @ weight + bias, 0, atol=5e-6)
    np.testing.assert_allclose(u, saved["vim_dim32_u"], atol=3e-6)


def test_the_unused_directions_are_openood_s(saved):
    weight, bias = jnp.asarray(saved["fc_weight"]).T, jnp.asarray(saved["fc_bias"])
    usual = golden_openood.seen(saved, "train", origin(weight, bias))
    fitted = ViM(12).fit(usual)
    projector = fitted.unused.basis @ fitted.unused.basis.T
    np.testing.assert_allclose(projector, saved["vim_dim12_NS_projector"], atol=2e-5)
    np.testing.assert_allclose(fitted.unused.alpha, saved["vim_dim12_alpha"], rtol=1e-5)


def test_few_images_leave_unused_directions():
    # Six images span no more than six of twenty directions; three of them are usual.
    rng = np.random.default_rng(0)
    usual = Seen(jnp.float32(rng.normal(size=(6, 20))), jnp.full((6, 2), 3.0))
    unused = ViM().fit(usual).unused
    assert unused.basis.shape == (20, 17) and float(unused.alpha) < 3


def test_generalised_entropy_by_its_definition():
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 3, 12), jnp.float32)
    p = np.sort(np.exp(np.float64(logits)) / np.exp(np.float64(logits)).sum())
    for gamma, largest in ((0.1, 100), (0.5, 3)):
        expected = np.sum((p * (1 - p))[-largest:] ** gamma)
        found = GEN(gamma, largest).judge(Seen(jnp.zeros(1), logits)).score
        np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_nearly_certain_classifiers_are_told_apart():
    # 1 - max p is 2 exp(-l) here; in float32 max p is 1 from l = 17 on.
    for margin in (20.0, 30.0):
        looked = Seen(jnp.zeros(1), jnp.array([0.0, margin, 0.0]))
        expected = 2 * np.exp(-margin)
        np.testing.assert_allclose(MSP().judge(looked).score, expected, rtol=1e-5)
        entropy = (expected * 1) ** 0.1 + 2 * np.exp(-margin) ** 0.1
        np.testing.assert_allclose(GEN().judge(looked).score, entropy, rtol=1e-5)


def test_few_images_have_a_farthest_neighbour():
    usual = Seen(jnp.eye(3), jnp.zeros((3, 2)))
    looked = Seen(jnp.array([2.0, 0.0, 0.0]), jnp.zeros(2))
    assert float(KNN(1).fit(usual).judge(looked).score) == 0
    np.testing.assert_allclose(KNN(50).fit(usual).judge(looked).score, 2, rtol=1e-6)


def test_a_classifier_of_ours_is_looked_at():
    net = ResNet((1,), width=4, classes=3)
    x = jax.random.uniform(jax.random.key(0), (4, 4, 3))
    variables = jax.jit(net.init)(jax.random.key(1), x)
    classifier = Classifier(net, variables, (4, 4, 3))
    given = Given(None, image=x, classifier=classifier)
    weight, _ = classifier.head  # b is 0 when a network is new
    looked = jax.jit(MSP().look)(jax.random.key(2), given)
    np.testing.assert_allclose(looked.logits, looked.features @ weight, rtol=1e-4)
    about = jax.jit(ViM().look)(jax.random.key(2), given).features
    np.testing.assert_allclose(about @ weight, looked.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Energy(0.0), "temperature=0.0: must be positive"),
        (lambda: GEN(gamma=2.0), r"gamma=2.0: must be in \[0, 1\]"),
        (lambda: GEN(largest=0), "largest=0: must be an integer >= 1"),
        (lambda: KNN(k=0), "k=0: must be an integer >= 1"),
        (lambda: ViM(dimensions=-1), "dimensions=-1: must be an integer >= 0"),
        (
            lambda: ViM(4).fit(Seen(jnp.ones((2, 4)), jnp.ones((2, 3)))),
            "dimensions=4: must be fewer than the 4 features",
        ),
        (
            lambda: MSP().look(
                jax.random.key(0), Given(None, image=jnp.ones((2, 2, 1)))
            ),
            "this detector asks a classifier, and there is none",
        ),
    ],
)
def test_wrong_settings_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
