import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.detectors import sinogram_error
from klip_jax.detectors.sinogram_error import RECONSTRUCTIONS
from klip_jax.operators.ct import ParallelBeam
from klip_jax.operators.identity import Identity
from klip_jax.priors.analytic import Gaussian

SHAPE, LEVELS = (6, 6, 1), jnp.float32([0.1, 0.6, 2.0])
PRIOR = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(36), jnp.full(36, 0.04))
pytestmark = pytest.mark.usefixtures("compile_fast")
run = jax.jit(sinogram_error.errors, static_argnames="steps")


def test_of_the_identity_both_domains_are_one():
    y = PRIOR.sample(jax.random.key(0))
    found = run(jax.random.key(1), y, Identity(SHAPE), 0.1, PRIOR, LEVELS, steps=2)
    assert found.image.shape == (len(RECONSTRUCTIONS), 3, *SHAPE[:2])
    np.testing.assert_allclose(found.sinogram, found.image, rtol=1e-4, atol=1e-7)
    means = found.image.mean((2, 3))
    np.testing.assert_allclose(found.misfit, means, rtol=1e-4, atol=1e-7)


def test_from_far_up_the_white_prior_gives_what_is_known():
    # The chain forgets where it started: x^ = mean + sqrt(v) z without y, to a few
    # percent at 30 steps; with y it is drawn to y by v / (v + noise_var).
    y = jnp.full(SHAPE, 1.5)
    arguments = (Identity(SHAPE), 0.02, PRIOR, jnp.float32([20.0]))
    found = run(jax.random.key(2), y, *arguments, steps=30)
    alone, guided = found.image[:, 0].mean((1, 2))
    # |y - mean|^2 = 1 and the spread .04 of 36 pixels.
    assert 0.7 < alone < 1.5
    assert guided < 0.01


def test_data_without_weight_guides_nowhere():
    operator = ParallelBeam(SHAPE, views=5)
    y = operator(PRIOR.sample(jax.random.key(3)))
    useless, useful = (
        run(jax.random.key(4), y, operator, noise_std, PRIOR, LEVELS, steps=3)
        for noise_std in (1e4, 0.05)
    )
    for alone, guided in (useless.sinogram, useless.image, useless.misfit):
        np.testing.assert_allclose(guided, alone, rtol=1e-2, atol=1e-4)
    alone, guided = useful.misfit
    assert np.all(guided < alone)
    np.testing.assert_allclose(alone, useless.misfit[0], rtol=1e-5)


def test_a_mix_is_between():
    found = sinogram_error.Errors(*(np.array([1.0, 3.0]) for _ in range(3)))
    assert sinogram_error.mixed(found, 0.25) == sinogram_error.Errors(1.5, 1.5, 1.5)
    assert sinogram_error.network_calls(5, steps=10) == 100
