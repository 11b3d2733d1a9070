"""Scores of a classifier: OpenOOD's own numbers, and what keeps them apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import metrics
from klip_jax.classifiers.base import Classifier
from klip_jax.classifiers.resnet import ResNet
from klip_jax.detectors.base_classifier import Seen
from klip_jax.detectors.classifier_features import KNN, ViM, origin
from klip_jax.detectors.classifier_logits import GEN, MSP, Energy, MaxLogit
from klip_jax.types import Given

pytestmark = pytest.mark.usefixtures("compile_fast")
# Of OpenOOD's confidence, and how far two float32 programs may be, by the largest.
SCORES = {
    "msp": (MSP(), 3e-7),
    "mls": (MaxLogit(), 0),
    "ebo_T1": (Energy(), 3e-7),
    "ebo_T2": (Energy(2.0), 3e-7),
    "knn_K50": (KNN(), 6e-7),
    "knn_K5": (KNN(5), 6e-7),
    "vim_dim32": (ViM(32), 2e-5),
    "vim_dim12": (ViM(12), 2e-5),
}
SETS = "id", "near", "far"
judge = jax.jit(jax.vmap(lambda detector, looked: detector.judge(looked), (None, 0)))


@pytest.fixture
def saved(shared_data):
    return np.load(shared_data / "golden" / "dg_openood.npz")


def seen(saved, name, *, about=0.0):
    features = saved[f"feat_{name}"] - np.asarray(about)
    return Seen(jnp.asarray(features), jnp.asarray(saved[f"logits_{name}"]))


def scores(saved, name):
    """Return the scores of the three sets, bigger is more out-of-distribution."""
    detector, _ = SCORES[name]
    head = (jnp.asarray(saved["fc_weight"]).T, jnp.asarray(saved["fc_bias"]))
    about = origin(*head) if isinstance(detector, ViM) else 0.0
    fitted = detector.fit(seen(saved, "train", about=about))
    return {
        s: np.asarray(judge(fitted, seen(saved, s, about=about)).score) for s in SETS
    }


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_openood_s(saved, name):
    shift = 1 if name == "msp" else 0  # 1 - max p
    for of, found in scores(saved, name).items():
        expected = saved[f"score_{name}_{of}"].astype(np.float64)
        gap = np.abs(shift - found.astype(np.float64) - expected).max()
        assert gap <= SCORES[name][1] * np.abs(expected).max()


@pytest.mark.parametrize("name", SCORES)
def test_metrics_are_openood_s_in_both_polarities(saved, name):
    rows, columns = (list(saved[f"metric_{axis}"]) for axis in ("rows", "columns"))
    theirs = {of: -np.float64(saved[f"score_{name}_{of}"]) for of in SETS}
    # Of their own scores to the last digit; ours may swap two images that are close.
    for found, atol in ((theirs, 1e-12), (scores(saved, name), 5e-5)):
        for of in ("near", "far"):
            row = saved["metrics"][rows.index(f"{name}|{of}")]
            check(dict(zip(columns, row, strict=True)), found["id"], found[of], atol)


def test_metrics_where_scores_tie(saved):
    columns = list(saved["edge_columns"])
    for name, row in zip(saved["edge_names"], saved["edge_metrics"], strict=True):
        own, ood = (-saved[f"edge_{name}_{of}"] for of in ("id", "ood"))
        expected = dict(zip(columns, row, strict=True))
        if name == "staircase_ties":
            # There scikit-learn leaves the point of the definition out.
            assert 1.0 in [expected.pop(c) for c in columns if c.startswith("FPR95")]
        check(expected, own, ood, 1e-12)


def check(expected, own, ood, atol):
    both = np.concatenate([own, ood])
    is_ood = np.arange(len(both)) >= len(own)
    found = {
        "AUROC_v15": metrics.auroc(both, is_ood),
        "FPR95_v15_ood_positive": metrics.fpr95_ood_pos(both, is_ood),
        "FPR95_v10_id_positive": metrics.fpr95_id_pos(both, is_ood),
        "AUPR_OUT_v15": metrics.aupr(both, is_ood),
        "AUPR_IN_v15": metrics.aupr(-both, ~is_ood),
    }
    for name in found.keys() & expected.keys():
        np.testing.assert_allclose(found[name], expected[name], atol=atol, err_msg=name)


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
    fitted = ViM(12).fit(seen(saved, "train", about=origin(weight, bias)))
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
