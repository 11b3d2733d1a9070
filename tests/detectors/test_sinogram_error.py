import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.detectors import sinogram_error
from klip_jax.detectors.sinogram_error import RECONSTRUCTIONS, SinogramError
from klip_jax.operators.ct import ParallelBeam
from klip_jax.operators.identity import Identity
from klip_jax.priors.analytic import Gaussian
from klip_jax.types import Given, Scan

SHAPE, LEVELS = (6, 6, 1), jnp.float32([0.1, 0.6, 2.0])
PRIOR = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(36), jnp.full(36, 0.04))
run = jax.jit(sinogram_error.errors, static_argnames="steps")


def test_of_the_identity_both_domains_are_one():
    y = PRIOR.sample(jax.random.key(0))
    scan = Scan(Identity(SHAPE), y, 0.1)
    found = run(jax.random.key(1), scan, PRIOR, LEVELS, steps=2)
    assert found.image.shape == (len(RECONSTRUCTIONS), 3, *SHAPE[:2])
    np.testing.assert_allclose(found.sinogram, found.image, rtol=1e-4, atol=1e-7)
    means = found.image.mean((2, 3))
    np.testing.assert_allclose(found.misfit, means, rtol=1e-4, atol=1e-7)


def test_from_far_up_the_white_prior_gives_what_is_known():
    # The chain forgets where it started: x^ = mean + sqrt(v) z without y, to a few
    # percent at 30 steps; with y it is drawn to y by v / (v + noise_var).
    y = jnp.full(SHAPE, 1.5)
    scan = Scan(Identity(SHAPE), y, 0.02)
    found = run(jax.random.key(2), scan, PRIOR, jnp.float32([20.0]), steps=30)
    alone, guided = found.image[:, 0].mean((1, 2))
    # |y - mean|^2 = 1 and the spread .04 of 36 pixels.
    assert 0.7 < alone < 1.5
    assert guided < 0.01


def test_data_without_weight_guides_nowhere():
    operator = ParallelBeam(SHAPE, views=5)
    y = operator(PRIOR.sample(jax.random.key(3)))
    useless, useful = (
        run(jax.random.key(4), Scan(operator, y, noise_std), PRIOR, LEVELS, steps=3)
        for noise_std in (1e4, 0.05)
    )
    for alone, guided in (useless.sinogram, useless.image, useless.misfit):
        np.testing.assert_allclose(guided, alone, rtol=1e-2, atol=1e-4)
    alone, guided = useful.misfit
    assert np.all(guided < alone)
    np.testing.assert_allclose(alone, useless.misfit[0], rtol=1e-5)


def test_a_mix_is_between():
    given = Given(PRIOR, Scan(Identity(SHAPE), jnp.full(SHAPE, 0.7), 0.1))
    settings = dict(levels=(0.1, 0.6), steps=2)
    both = SinogramError(**settings).look(jax.random.key(5), given)
    looked = jnp.stack([both, 2 * both, 3 * both])
    scores = {}
    for weight in (0.0, 0.25, 1.0):
        detector = SinogramError(weight=weight, **settings).fit(looked)
        errors = (1 - weight) * looked[:, 0] + weight * looked[:, 1]
        means = errors.mean((2, 3))
        z = (errors - means.mean(0)[:, None, None]) / means.std(0, ddof=1)[
            :, None, None
        ]
        detection = detector.judge(looked[2])
        np.testing.assert_allclose(detection.heatmap, z[2].mean(0), rtol=1e-3)
        scores[weight] = detection.score
        np.testing.assert_allclose(scores[weight], 1, rtol=1e-3)
    assert SinogramError().network_calls == 100


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="domain='fourier': choose one of"):
        SinogramError(domain="fourier")
    with pytest.raises(ValueError, match=r"weight=1.5: must be in \[0, 1\]"):
        SinogramError(weight=1.5)
    with pytest.raises(ValueError, match="there is no scan"):
        SinogramError().look(jax.random.key(0), Given(PRIOR, image=jnp.zeros(SHAPE)))
