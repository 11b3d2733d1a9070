"""DiffGuard: closed forms of its chain, the stop of each image, what settings mean."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import problem
import pytest

from klip_jax import struct
from klip_jax.classifiers.base import Classifier
from klip_jax.detectors.base_inversion import (
    generate,
    invert,
    latent_ladder,
    pixel_ladder,
    released_decibels,
)
from klip_jax.detectors.diffguard import DiffGuard
from klip_jax.distances import pixel
from klip_jax.guidance.classifier import AtBlend, AtState
from klip_jax.guidance.classifier_free import ClassifierFree
from klip_jax.guidance.none import NoGuidance
from klip_jax.priors.analytic import Gaussian
from klip_jax.types import Given

SHAPE = (4, 4, 1)
PRIOR = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(16), jnp.full(16, 0.01))
X = 0.5 + 0.1 * jax.random.normal(jax.random.key(0), SHAPE)
IMAGES = 0.5 + 0.3 * jax.random.normal(jax.random.key(1), (6, *SHAPE))
IMAGES *= jnp.linspace(0.2, 2, 6)[:, None, None, None]


@struct.dataclass
class ByMean:
    """Two classes of the mean, whose logits are a (m - 1/2) and its negative."""

    slope: Any = 4.0

    def features(self, x):
        return jnp.stack([x.mean() - 0.5, 0.5 - x.mean()])

    def of_features(self, features):
        return self.slope * features


@struct.dataclass
class Below(Classifier):
    """One that sees class 0, and that in the lower half."""

    def maps(self, x):
        return jnp.ones((2, 2, 2)).at[0].set(0.0) * jnp.array([1.0, 0.0])

    def features(self, x):
        return self.maps(x).mean((0, 1))

    def of_features(self, features):
        return features


@struct.dataclass
class Classes:
    """A prior whose classes differ in the mean."""

    def given(self, label):
        mean = jnp.asarray([0.3, 0.7, 0.5])[2 if label is None else label]
        return PRIOR.replace(mean=jnp.broadcast_to(mean, SHAPE))

    def __call__(self, x, sigma):
        return self.given(None)(x, sigma)

    def variance(self, sigma):
        return PRIOR.variance(sigma)


@functools.partial(jax.jit, static_argnums=1)
def there_and_back(x, n):
    ladder = pixel_ladder(n)
    up = invert(PRIOR, x, ladder, steps=n // 2, stop=lambda x: jnp.asarray(False))
    first = jnp.int32(n // 2)
    return generate(PRIOR, NoGuidance(), lambda i: None, up.latent, ladder, first=first)


def test_up_and_down_returns_to_the_image_at_first_order():
    gaps = [float(jnp.abs(there_and_back(X, n) - X).max()) for n in (50, 100, 200)]
    orders = np.log2(np.divide(gaps[:-1], gaps[1:]))
    assert gaps[-1] < 0.05
    np.testing.assert_allclose(orders, 1, atol=0.25)


def test_up_is_the_closed_form_of_a_gaussian():
    """Each step scales what is left of the mean by a known number."""
    ladder = pixel_ladder(50)
    never = lambda x: jnp.asarray(False)  # noqa: E731
    up = jax.jit(lambda x: invert(PRIOR, x, ladder, steps=30, stop=never))(X)
    factor, v = np.sqrt(1 + 4 * ladder.sigmas[0] ** 2), 0.01
    for sigma, above in zip(ladder.below[:30], ladder.above[:30], strict=True):
        shrunk = v / (v + sigma**2)
        factor *= shrunk + above / sigma * (1 - shrunk)
    factor /= np.sqrt(1 + 4 * ladder.sigmas[30] ** 2)
    np.testing.assert_allclose(up.latent - 0.5, factor * (X - 0.5), rtol=2e-4)
    assert up.stop == 29


def looks(detector, images, prior=PRIOR, classifier=None):
    def one(image):
        given = Given(prior, image=image, classifier=classifier or ByMean())
        return detector.look(jax.random.key(0), given)

    return jax.jit(jax.vmap(one))(images)


def test_each_image_of_a_batch_stops_as_it_would_alone():
    detector = DiffGuard(guidance=AtBlend(crops=0), steps=25, stop_psnr=12.0)
    together = looks(detector, IMAGES)
    assert len(set(np.asarray(together.stop).tolist())) >= 3
    for i in (0, 3, 5):
        alone = looks(detector, IMAGES[i : i + 1])
        for one, all_of_it in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], all_of_it[i], atol=2e-5)


def test_an_image_costs_the_calls_that_its_stop_says():
    """And a batch those of the image that stops last."""
    calls: list[int] = []

    @struct.dataclass
    class Counting:
        def __call__(self, x, sigma):
            jax.debug.callback(lambda _: calls.append(1), sigma)
            return PRIOR(x, sigma)

        def variance(self, sigma):
            return PRIOR.variance(sigma)

    settings = dict(steps=20, stop_psnr=12.0, against="unguided")
    detector = DiffGuard(guidance=AtBlend(crops=0), **settings)
    needed = []
    for images in (IMAGES[5:], IMAGES[2:6]):
        calls.clear()
        looked = looks(detector, images, Counting())
        told = jax.vmap(detector.extras)(looked)["calls"]
        jax.effects_barrier()
        # The callback is told of each image of a batch.
        assert len(calls) == len(images) * int(told.max())
        needed.append(int(told.max()))
    assert needed[0] < needed[1] <= detector.network_calls
    longest = jnp.float32(detector.climbed - 1)
    assert detector.calls_of(longest) == detector.network_calls


def test_it_stops_where_the_threshold_is_crossed_first():
    detector = DiffGuard(guidance=AtBlend(crops=0), steps=50, stop_psnr=15.0)
    given = Given(PRIOR, image=IMAGES[2], classifier=ByMean())
    stop = detector.invert(given, IMAGES[2]).stop
    for steps, crossed in ((int(stop) + 1, True), (int(stop), False)):
        shorter = detector.replace(skipped=50 - steps, stop_psnr=-math.inf)
        state = shorter.invert(given, IMAGES[2]).latent
        assert bool(pixel.psnr(state, IMAGES[2]) < 15.0) == crossed


def test_without_guidance_guided_is_unguided():
    detector = DiffGuard(guidance=AtBlend(scale=0.0, crops=0), steps=25)
    looked = looks(detector.replace(against="unguided"), IMAGES)
    np.testing.assert_array_equal(looked.guided, looked.reference)
    np.testing.assert_array_equal(looked.distance, 0)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_a_classifier_pulls_toward_the_class_it_sees(scale):
    """And the more the larger the scale: all pixels move by the same."""
    guidance = AtState(scale=scale, crops=0)
    looked = looks(DiffGuard(guidance=guidance, steps=25, against="unguided"), IMAGES)
    # Of images whose estimates are not clipped.
    drift = (looked.guided - looked.reference)[:2]
    sign = jnp.sign(IMAGES.mean((1, 2, 3)) - 0.5)[:2]
    mean = drift.mean((1, 2, 3))
    assert bool((sign * mean > 0).all())
    np.testing.assert_allclose(drift, jnp.broadcast_to(
        mean[:, None, None, None], drift.shape), atol=1e-5)  # fmt: skip


def test_a_class_is_guided_to_where_the_classifier_sees_it():
    settings = dict(steps=25, against="unguided", skipped=15)
    below = Below(net=None, variables={}, image_shape=SHAPE)
    plain, cut = (
        looks(DiffGuard(guidance=ClassifierFree(2.0, cut), **settings), IMAGES[:1],
              Classes(), below)
        for cut in (None, 0.5)
    )  # fmt: skip
    np.testing.assert_allclose(cut.reference, plain.reference, atol=1e-6)
    np.testing.assert_allclose(cut.guided[0, :2], cut.reference[0, :2], atol=1e-6)
    np.testing.assert_allclose(cut.guided[0, 2:], plain.guided[0, 2:], atol=1e-6)
    assert float(jnp.abs(plain.guided - plain.reference).min()) > 1e-3


def test_an_oracle_may_name_the_class():
    detector = DiffGuard(guidance=AtBlend(crops=0), steps=25)
    given = Given(PRIOR, image=X, classifier=ByMean())
    key, own = jax.random.key(0), int(X.mean() < 0.5)
    look_as = jax.jit(detector.look_as)
    seen = looks(detector, X[None])
    same = look_as(key, given, own).guided
    np.testing.assert_allclose(same, seen.guided[0], atol=1e-5)
    other = look_as(key, given, 1 - own)
    assert float(jnp.abs(other.guided - seen.guided[0]).max()) > 1e-3


def test_the_scale_of_the_release():
    assert released_decibels(48.5) == pytest.approx(6.39, abs=5e-3)
    a, b = X, X + 0.3
    theirs = 20 * np.log10(255) - 10 * np.log10(float(jnp.mean((2 * a - 2 * b) ** 2)))
    assert released_decibels(theirs) == pytest.approx(float(pixel.psnr(a, b)), abs=1e-4)
    kind = functools.partial(DiffGuard, guidance=AtBlend(crops=0), steps=25)
    ours = looks(kind(stop_psnr=released_decibels(57.0)), IMAGES)
    named = looks(kind(released_stop_psnr=57.0), IMAGES)
    np.testing.assert_array_equal(ours.stop, named.stop)
    assert len(np.unique(ours.stop)) > 1


def test_calls_are_those_of_the_release_without_its_third():
    """60 levels up, 62 down with and without guidance: 184, where it makes 246."""
    detector = DiffGuard(skipped=40, against="unguided")
    assert detector.network_calls == 184
    assert detector.classifier_calls == 1 + 62 * 16 + 2
    assert detector.replace(against="input").network_calls == 122
    free = DiffGuard(guidance=ClassifierFree(10.0, 0.3), skipped=40)
    assert free.network_calls == 60 + 2 * 62 and free.classifier_calls == 5


@struct.dataclass
class Half:
    """An autoencoder that halves."""

    def encode(self, x):
        return x / 2

    def decode(self, z):
        return 2 * z


@struct.dataclass
class Quarter:
    """An autoencoder of every fourth pixel."""

    def encode(self, x):
        return x[::4, ::4]

    def decode(self, z):
        return z.repeat(4, 0).repeat(4, 1)


def test_latents_go_up_and_down_their_own_levels():
    settings = dict(steps=20, skipped=0, ahead=0, stop_psnr=-math.inf)
    detector = DiffGuard(guidance=ClassifierFree(0.0), autoencoder=Half(), **settings)
    prior = Classes()
    looked = looks(detector, 0.5 + 0 * IMAGES[:1], prior)
    assert detector.network_calls == 20 + 2 * 20 and looked.stop[0] == 19
    assert looked.inverted.shape == looked.guided.shape == (1, *SHAPE)
    assert bool(jnp.isfinite(looked.guided).all())
    ladder = latent_ladder(20)
    np.testing.assert_allclose(ladder.below[1:], ladder.sigmas[:-1])
    assert ladder.below[0] == ladder.end > 0


def test_extras_are_named():
    detector = DiffGuard(guidance=AtBlend(crops=0), steps=25)
    looked = looks(detector, IMAGES[:1])
    names = {"inverted", "guided", "input", "stop", "calls"}
    assert set(detector.extras(looked)) == names
    detector = detector.replace(against="unguided")
    assert "unguided" in detector.extras(looked)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(distance="logits.l7"), "distance='logits.l7': must be of"),
        (dict(against="it"), "against='it': must be of"),
        (dict(guidance=NoGuidance()), "NoGuidance: looks at no label"),
        (dict(distance="perceptual"), "perceptual=None: the distance 'perceptual'"),
        (dict(stop_distance=0.6), "perceptual=None: the distance 'perceptual'"),
        (dict(stop_psnr=48.5), "stop_psnr=48.5: .* set released_stop_psnr"),
        (dict(stop_psnr=math.nan), "stop_psnr=nan: must be at most 40"),
        (dict(released_stop_psnr=6.39), "=6.39: is -35.72 dB, .* set stop_psnr"),
        (dict(released_stop_psnr=90.0), "=90.0: is 47.89 dB, .* set stop_psnr"),
        (
            dict(stop_distance=0.0, perceptual=abs),
            r"stop_distance=0.0: must lie in \(0",
        ),
        (dict(stop_distance=38, perceptual=abs), "of a similarity s give 1 - s"),
        (dict(skipped=100), "skipped=100: leaves none of steps=100"),
        (dict(steps=300), "steps=300: must be 1000 over a whole stride"),
        (dict(skipped=-1), "skipped=-1: must be an integer >= 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        DiffGuard(**settings)


def test_classifier_and_prior_know_the_same_classes():
    @struct.dataclass
    class Three(Classes):
        classes: int = struct.field(pytree_node=False, default=3)

    detector = DiffGuard(guidance=ClassifierFree(2.0), steps=25)
    with pytest.raises(ValueError, match="names 2 classes, but the prior knows 3"):
        looks(detector, IMAGES[:1], Three())


def test_what_the_prior_sees_of_a_picture():
    assert DiffGuard().prior_shape((28, 28, 3)) == (28, 28, 3)
    assert DiffGuard(side=32).prior_shape((28, 28, 3)) == (32, 32, 3)
    detector = DiffGuard(side=32, autoencoder=Quarter(), steps=25)
    assert detector.prior_shape((28, 28, 3)) == (8, 8, 3)


def test_a_classifier_is_needed():
    with pytest.raises(ValueError, match="asks a classifier, and there is none"):
        DiffGuard(steps=25).look(jax.random.key(0), Given(PRIOR, image=X))
    assert problem.build(DiffGuard).steps == 25
