"""DiffGuard where all is known: up, down and guidance of a Gaussian prior."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import struct
from klip_jax.detectors.base_inversion import pixel_ladder, released_decibels
from klip_jax.detectors.diffguard import DiffGuard
from klip_jax.guidance.classifier import AtState
from klip_jax.guidance.classifier_free import ClassifierFree, Label
from klip_jax.priors.analytic import Gaussian
from klip_jax.types import Given

SHAPE, V = (4, 4, 1), 0.01
PRIOR = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(16), jnp.full(16, V))
X = 0.5 + 0.05 * jax.random.normal(jax.random.key(0), SHAPE)
# It goes down from the level that it reached.
FIXED = dict(skipped=0, ahead=1, stop_psnr=-math.inf, against="unguided")


@struct.dataclass
class Slope:
    """Two classes whose logits are 4 (m - 1/2) of the mean m, and 0."""

    def features(self, x):
        return jnp.stack([4 * (x.mean() - 0.5), jnp.float32(0)])

    def of_features(self, features):
        return features


def looks(detector, image=X, prior=PRIOR):
    given = Given(prior, image=image, classifier=Slope())
    return jax.jit(lambda d: d.look(jax.random.key(0), given))(detector)


def there_and_back(levels):
    """Return what (15.4) of docs/theory.md says is left of x - mu."""
    s, t = levels[:-1], levels[1:]
    return np.prod(1 - V * (t - s) ** 2 / ((V + s**2) * (V + t**2)))


@pytest.mark.parametrize("steps", [20, 200])
def test_without_guidance_x_returns_up_to_a_known_factor(steps):
    guidance = AtState(scale=0.0, crops=0)
    seen = looks(DiffGuard(guidance=guidance, steps=steps, **FIXED))
    levels = pixel_ladder(steps).sigmas
    # x lies at the lowest level from the start, and leaves it for 0 in the end.
    first = 1 / np.sqrt(1 / (1 + 4 * levels[0] ** 2)) * V / (V + levels[0] ** 2)
    left = first * there_and_back(levels)
    np.testing.assert_allclose(seen.guided - 0.5, left * (X - 0.5), atol=2e-5)
    np.testing.assert_array_equal(seen.guided, seen.reference)


def test_the_factor_is_one_to_first_order_in_the_step():
    low, high = np.log(0.01), np.log(3.0)
    lost = [1 - there_and_back(np.exp(np.linspace(low, high, n))) for n in (101, 201)]
    assert lost[1] < 0.02 and abs(np.log2(lost[0] / lost[1]) - 1) < 0.02


def test_a_linear_classifier_drifts_by_the_closed_form():
    """All pixels move alike, and away from 1/2."""
    scale = 2.0
    detector = DiffGuard(guidance=AtState(scale=scale, crops=0), steps=20, **FIXED)
    seen = looks(detector)
    levels = pixel_ladder(20).sigmas
    a = 1 / np.sqrt(1 + 4 * levels**2)
    # The mean of the state, as the chain without guidance has it, and the drift.
    mean, moved, sign = float(X.mean()) - 0.5, 0.0, float(jnp.sign(X.mean() - 0.5))
    mean *= np.prod((V + levels[:-1] * levels[1:]) / (V + levels[:-1] ** 2)) / a[0]
    down = np.concatenate([[0.0], levels])
    for k in range(len(levels) - 1, -1, -1):
        sigma, lower, keep = down[k + 1], down[k], down[k] / down[k + 1]
        shown = 4 * a[k] * (mean + moved)
        slope = a[k] * scale * 4 * sign / (1 + np.exp(sign * shown)) / 16
        share = V / (V + sigma**2)
        moved = (share * (1 - keep) + keep) * moved + (1 - keep) * sigma**2 * slope
        mean *= (V + sigma * lower) / (V + sigma**2)
    drift = np.asarray(seen.guided - seen.reference)
    np.testing.assert_allclose(drift, moved, rtol=2e-3, atol=1e-7)
    assert sign * moved > 1e-3


def test_labels_that_mean_the_same_guide_nowhere():
    @struct.dataclass
    class Alike(Gaussian):
        def given(self, label):
            return PRIOR

    prior = Alike(PRIOR.mean, PRIOR.basis, PRIOR.spectrum)
    seen = looks(
        DiffGuard(guidance=ClassifierFree(9.0), steps=20, **FIXED), prior=prior
    )
    np.testing.assert_allclose(seen.guided, seen.reference, atol=1e-6)
    assert float(seen.distance) < 1e-4


@pytest.mark.parametrize("share", [0, 1])
def test_a_mask_of_one_value_is_no_guidance_or_no_mask(share):
    @struct.dataclass
    class Two(Gaussian):
        def given(self, label):
            return PRIOR if label is None else PRIOR.replace(mean=PRIOR.mean + 0.1)

    prior, guidance = Two(PRIOR.mean, PRIOR.basis, PRIOR.spectrum), ClassifierFree(3.0)
    detector = DiffGuard(guidance=guidance, steps=20, **FIXED)
    given = Given(prior, image=X, classifier=Slope())

    @jax.jit
    def end(target):
        return detector.generate(given, detector.invert(given, X), target)

    masked = end(Label(1, jnp.full(SHAPE[:2], bool(share))))
    none, everywhere = end(None), end(Label(1))
    np.testing.assert_allclose(masked, everywhere if share else none, atol=1e-6)
    assert float(jnp.abs(everywhere - none).min()) > 0.05


def test_48_5_is_6_39_decibels():
    """Of the same two pictures, in [-1, 1] with a peak of 255 and with that of 2."""
    error = 10 ** (-6.39 / 10)  # mean square in [0, 1]
    theirs = 20 * math.log10(255) - 10 * math.log10(4 * error)
    assert theirs == pytest.approx(48.5, abs=5e-3)
    assert released_decibels(theirs) == pytest.approx(6.39, abs=1e-9)
    assert math.sqrt(error) == pytest.approx(0.48, abs=2e-3)
