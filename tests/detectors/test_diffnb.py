"""DiffNB: closed forms of its chains, one noise for all, what settings mean."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import struct
from klip_jax.detectors.diffnb import LEVELS, RELEASED_ASKED, DiffNB, timestep_levels
from klip_jax.distances.logits import normalised_l1
from klip_jax.priors.analytic import Gaussian
from klip_jax.priors.base import timestep_sigmas
from klip_jax.types import Given

SHAPE, SPREAD = (4, 4, 1), 0.04
X = 0.5 + 0.2 * jax.random.normal(jax.random.key(0), SHAPE)
Z = jax.random.normal(jax.random.key(1), (2, *SHAPE))
SHORT = DiffNB(levels=(0.01, 0.1, 0.2, 0.4), starts=(1, 3), draws=2)


@struct.dataclass
class Classes:
    """White Gaussians around 0.3, 0.7 and, of no class, 0.5."""

    means: Any = (0.3, 0.7, 0.5)

    @property
    def classes(self):
        return len(self.means) - 1

    def given(self, label):
        mean = jnp.asarray(self.means)[self.classes if label is None else label]
        white = jnp.broadcast_to(mean, SHAPE)
        return Gaussian(white, jnp.eye(16), jnp.full(16, SPREAD))

    def __call__(self, x, sigma):
        return self.given(None)(x, sigma)

    def variance(self, sigma):
        return self.given(None).variance(sigma)


@struct.dataclass
class ByMean:
    """Two classes of the mean m, whose logits are (1, 4 m)."""

    def features(self, x):
        return jnp.stack([x.mean(), 1 - x.mean()])

    def of_features(self, features):
        return jnp.stack([jnp.float32(1), 4 * features[0]])


GIVEN = Given(Classes(), image=X, classifier=ByMean())
reconstruct = jax.jit(lambda detector, label, z: detector.reconstruct(GIVEN, label, z))
look = jax.jit(lambda detector, key: detector.look(key, GIVEN))


@pytest.mark.parametrize("asked", [(), (0.09, 0.15, 0.45)])
def test_a_chain_of_a_gaussian_has_a_closed_form(asked):
    """Each step keeps a known share of what is left of the guided mean."""
    ends = reconstruct(SHORT.replace(asked=asked), 1, Z[0])
    alpha = 1 / np.sqrt(1 + 4 * np.float64(SHORT.levels[0]) ** 2)
    noised = alpha * (X + SHORT.levels[0] * Z[0] - 0.5) + 0.5
    np.testing.assert_allclose(ends[0], noised, atol=1e-6)
    for end, start in zip(ends[1:], SHORT.starts, strict=True):
        x = np.asarray(X + SHORT.levels[start] * Z[0], np.float64)
        for k in range(start, 0, -1):
            sigma, lower = SHORT.levels[k], SHORT.levels[k - 1]
            at = asked[k - 1] if asked else sigma
            u = (x - 0.5) * np.sqrt((1 + 4 * at**2) / (1 + 4 * sigma**2))
            shrink = SPREAD / (SPREAD + at**2)
            # The guided mean is 0.5 + 3 (0.7 - 0.5), of which 1 - shrink is seen.
            x0 = shrink * u + (1 - shrink) * 3 * 0.2
            x = x + (lower - sigma) * (u - x0) / at
        np.testing.assert_allclose(end, alpha * (x - 0.5) + 0.5, atol=5e-6)


def test_a_score_is_of_its_pictures_and_one_noise():
    key = jax.random.key(3)
    seen = look(SHORT, key)
    assert seen.distances.shape == (2, 2)
    for n in range(2):
        z = jax.random.normal(jax.random.fold_in(key, n), SHAPE)
        label = int(X.mean() * 4 > 1)
        ends = jnp.clip(reconstruct(SHORT, label, z), 0, 1)
        logits = jax.vmap(lambda x: jnp.stack([1.0, 4 * x.mean()]))(ends)
        expected = [normalised_l1(logits[0], later) for later in logits[1:]]
        np.testing.assert_allclose(seen.distances[n], expected, atol=2e-6)
    detection = SHORT.judge(seen)
    np.testing.assert_allclose(detection.score, seen.distances.mean(), rtol=1e-6)
    each = np.asarray(seen.distances).mean(1)
    np.testing.assert_allclose(detection.stderr, np.ptp(each) / 2, rtol=1e-4)
    assert detection.heatmap is None
    assert bool(jnp.isnan(SHORT.judge(look(SHORT.replace(draws=1), key)).stderr))
    np.testing.assert_allclose(
        SHORT.extras(seen)["distances"], seen.distances.mean(0), rtol=1e-6
    )


def test_chains_share_one_noise_and_one_ladder():
    """A chain is the same whatever other chains start beside it."""
    both = reconstruct(SHORT, 0, Z[1])
    alone = reconstruct(SHORT.replace(starts=(3,)), 0, Z[1])
    np.testing.assert_allclose(alone, both[jnp.array([0, 2])], atol=1e-6)


def test_consecutive_levels_may_be_compared():
    named = jax.random.normal(jax.random.key(4), (3, 5))
    previous = SHORT.replace(against="previous").compare(named)
    clean = SHORT.compare(named)
    np.testing.assert_allclose(previous[0], clean[0])
    np.testing.assert_allclose(previous[1], normalised_l1(named[1], named[2]))
    features = SHORT.replace(compared="features").vectors(GIVEN, X[None])
    np.testing.assert_allclose(features[0], ByMean().features(jnp.clip(X, 0, 1)))


def test_classes_that_look_alike_need_no_weight():
    alike = GIVEN._replace(prior=Classes(means=(0.5, 0.5, 0.5)))
    ends = [
        jax.jit(lambda d: d.reconstruct(alike, 0, Z[0]))(SHORT.replace(weight=w))
        for w in (0.0, 9.0)
    ]
    np.testing.assert_allclose(*ends, atol=1e-6)


def test_levels_are_those_of_the_release():
    sigmas = timestep_sigmas(np.linspace(1e-4, 0.02, 1000)) / 2
    # Products rounded to float32 tell the lowest level to four digits.
    np.testing.assert_allclose(LEVELS, sigmas[:361:20], rtol=1e-4)
    np.testing.assert_allclose(RELEASED_ASKED, sigmas[19:360:20], rtol=2e-5)
    assert timestep_levels([120])[0] == LEVELS[6]
    released = DiffNB(asked=RELEASED_ASKED)
    assert released.network_calls == 4 * 36 * 2
    assert released.classifier_calls == 1 + 4 * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(starts=(19,)), r"starts=\(19,\): must be of 1 .. 18"),
        (dict(starts=()), r"starts=\(\): must be of 1 .. 18"),
        (dict(asked=(0.1,)), r"asked=\(0.1,\): must be one for each of levels"),
        (dict(levels=(0.2, 0.1)), r"levels=\(0.2, 0.1\): must increase"),
        (dict(draws=0), "draws=0: must be an integer >= 1"),
        (dict(compared="pixels"), "compared='pixels': must be of"),
        (dict(against="input"), "against='input': must be of"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        DiffNB(**settings)


def test_what_it_needs_is_said():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="asks a classifier, and there is none"):
        SHORT.look(key, GIVEN._replace(classifier=None))
    with pytest.raises(ValueError, match="Gaussian knows no classes"):
        SHORT.look(key, GIVEN._replace(prior=Classes().given(0)))
    three = GIVEN._replace(prior=Classes().replace(means=(0.1, 0.2, 0.3, 0.5)))
    with pytest.raises(ValueError, match="names 2 classes, but the prior knows 3"):
        SHORT.look(key, three)
