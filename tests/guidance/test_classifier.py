"""Guidance by a classifier: closed forms of a linear one, crops, three gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import struct
from klip_jax.guidance.base_preserving import alpha, exploding, preserving
from klip_jax.guidance.classifier import (
    AtBlend,
    AtState,
    Target,
    ThroughNetwork,
    blend,
    crop,
    random_boxes,
)
from klip_jax.guidance.guided import Guided
from klip_jax.priors.analytic import Gaussian
from klip_jax.priors.clipped import Clipped
from klip_jax.resize import nearest
from klip_jax.sample import sample
from klip_jax.samplers.ddim import DDIM

SHAPE, SPREAD = (8, 8, 1), 0.09
PRIOR = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(64), jnp.full(64, SPREAD))
WEIGHT = jax.random.normal(jax.random.key(0), (64,))
X = 0.5 + jax.random.normal(jax.random.key(1), SHAPE)
KINDS = AtBlend, ThroughNetwork, AtState


@struct.dataclass
class Linear:
    """Two classes whose logits are a weight times the pixels, and 0."""

    weight: jax.Array

    def features(self, x):
        return jnp.stack([jnp.sum(self.weight * x.ravel()), jnp.float32(0)])

    def of_features(self, features):
        return features


@struct.dataclass
class Mean:
    """Two classes by the mean of an image of any size."""

    def features(self, x):
        return jnp.stack([x.mean(), -x.mean()])

    def of_features(self, features):
        return features


def whole(kind, **settings):
    return kind(crops=0, **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_a_linear_classifier_has_a_closed_form(kind, sigma):
    x0, slope = jax.jit(lambda x: whole(kind, scale=2.0).score(
        PRIOR, Target(Linear(WEIGHT), 0), x, sigma))(X)  # fmt: skip
    estimate, a = PRIOR(X, sigma), 1 / np.sqrt(1 + 4 * sigma**2)
    w = np.sqrt(1 - a**2)
    shown = preserving(X, sigma) if kind is AtState else blend(estimate, X, sigma)
    doubt = jax.nn.sigmoid(-jnp.sum(WEIGHT * shown.ravel()))
    shrunk = SPREAD / (SPREAD + sigma**2)
    rule = {AtBlend: a, AtState: a, ThroughNetwork: w * shrunk + (1 - w) * a}[kind]
    expected = 2 * rule * doubt * WEIGHT.reshape(SHAPE)
    np.testing.assert_allclose(slope, expected, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(x0, estimate, atol=1e-6)


def test_a_chain_drifts_by_the_closed_form():
    """With logits (m, -m) of the mean m all pixels move alike."""
    sigmas = jnp.float32([1.0, 0.5, 0.2, 0.0])
    guidance, scan = whole(AtState, scale=1.0), Target(Mean(), 0)

    def chain(**guided):
        given = jax.random.key(0), DDIM(), PRIOR, sigmas, SHAPE
        return jax.jit(lambda: sample(*given, start=X, **guided))()

    drift = chain(guidance=guidance, scan=scan).x - chain().x
    x = X
    moved = jnp.float32(0)
    for sigma, lower in itertools.pairwise(sigmas):
        shrunk, a = SPREAD / (SPREAD + sigma**2), alpha(sigma)
        mean = preserving(x + moved, sigma).mean()
        slope = a * 2 * jax.nn.sigmoid(-2 * mean) / 64
        keep = lower / sigma
        moved = (shrunk * (1 - keep) + keep) * moved + (1 - keep) * sigma**2 * slope
        x = PRIOR(x, sigma) + keep * (x - PRIOR(x, sigma))
    np.testing.assert_allclose(drift, jnp.full(SHAPE, moved), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_crops_are_summed_or_averaged(kind):
    boxes = jnp.array([[0, 0, 8], [1, 0, 7], [0, 1, 7]])
    run = jax.jit(lambda g, boxes: g.score(PRIOR, Target(Mean(), 0, boxes), X, 0.5)[1])
    three = [run(kind(crops=3, reduction=r), boxes) for r in ("sum", "mean")]
    np.testing.assert_allclose(three[0], 3 * three[1], rtol=1e-5)
    each = [run(kind(crops=1), boxes[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(three[0], sum(each), rtol=1e-4, atol=1e-8)


def test_crops_are_the_resized_squares():
    for row, column, side in ((0, 0, 8), (1, 0, 7), (2, 1, 6)):
        expected = nearest(X[row : row + side, column : column + side], (6, 6))
        resized = jax.jit(lambda box: crop(X, box, side=6))(
            jnp.array([row, column, side])
        )
        np.testing.assert_array_equal(resized, expected)


def test_boxes_lie_inside_and_are_never_the_whole():
    boxes = np.asarray(random_boxes(jax.random.key(0), (32, 40), 5000, side=28))
    assert boxes[:, 2].min() == 28 and boxes[:, 2].max() == 31
    last = boxes[:, :2] + boxes[:, 2:]
    assert (boxes >= 0).all() and (last <= [32, 40]).all()
    assert (last.max(0) == [32, 40]).all() and (boxes[:, :2].min(0) == 0).all()


def test_crops_of_a_key_are_drawn_anew_at_each_level():
    guidance, target = AtState(crops=1, crop_side=3), Target(Mean(), 0)
    target = target._replace(key=jax.random.key(3))
    run = jax.jit(lambda s: guidance.score(PRIOR, target, X, s)[1] != 0)
    seen = [run(s) for s in (0.5, 0.5, 0.4)]
    np.testing.assert_array_equal(seen[0], seen[1])
    assert bool((seen[0] != seen[2]).any())


def test_the_classifier_sees_the_estimate_before_it_is_clipped():
    target = Target(Linear(WEIGHT), 0)
    plain, cut = (
        whole(AtBlend).score(p, target, 9 * X, 0.5) for p in (PRIOR, Clipped(PRIOR))
    )
    np.testing.assert_allclose(plain[1], cut[1], rtol=1e-5)
    np.testing.assert_allclose(cut[0], jnp.clip(plain[0], 0, 1), atol=1e-6)
    # What is added afterwards is not clipped again.
    strong = whole(AtBlend, scale=1e4)
    guided = Guided(Clipped(PRIOR), strong, Target(Linear(-WEIGHT), 0))
    assert float(jnp.abs(guided(X, 0.5)).max()) > 1


def test_the_state_and_back():
    for low in (-1.0, 0.0):
        back = exploding(preserving(X, 0.7, low=low), 0.7, low=low)
        np.testing.assert_allclose(back, X, atol=1e-6)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="crops=-1, crop_side=0: must be >= 0"):
        AtBlend(crops=-1)
    with pytest.raises(ValueError, match="reduction='max': must be of"):
        AtBlend(reduction="max")
    with pytest.raises(ValueError, match=r"crop_side=9: must lie in \[1, 8\]"):
        random_boxes(jax.random.key(0), (8, 8), 1, side=9)
    with pytest.raises(ValueError, match="neither boxes nor a key"):
        AtBlend().score(PRIOR, Target(Mean(), 0), X, 0.5)
    assert AtBlend().calls_of_score() == 16 and AtBlend(crops=0).calls_of_score() == 2
