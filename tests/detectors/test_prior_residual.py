import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.detectors.controls import DenoisedDistance
from klip_jax.detectors.prior_residual import PriorResidual, residuals
from klip_jax.priors.analytic import Gaussian
from klip_jax.priors.function import prior
from klip_jax.types import Given

SHAPE, KEY = (4, 3, 1), jax.random.key(0)
run = jax.jit(lambda detector, given: detector(KEY, given))


@pytest.fixture(scope="module")
def known():
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))
    spectrum = np.geomspace(0.01, 0.5, 12)
    law = Gaussian(jnp.full(SHAPE, 0.5), jnp.float32(basis), jnp.float32(spectrum))
    return law, jax.random.uniform(KEY, SHAPE), basis, spectrum


@pytest.mark.parametrize("pairs", [0, 1])
def test_pairs_leave_no_noise_on_a_gaussian_prior(known, pairs):
    # s (Sigma + s^2)^-1 (x - mean), whatever z is.
    law, x, basis, spectrum = known
    levels = jnp.array([0.1, 0.4])
    found = residuals(KEY, x, law, levels, pairs=pairs)
    for s, v in zip(np.asarray(levels), found, strict=True):
        expected = s * (basis / (spectrum + s**2)) @ basis.T @ (np.ravel(x) - 0.5)
        np.testing.assert_allclose(v.ravel(), expected, atol=2e-5)


def test_the_mean_is_over_noise(known):
    # D = x^2 takes away x - x^2 - s^2 in the mean, at any x.
    x = known[1]
    square = prior(lambda x, sigma: x**2)
    one = jax.jit(
        jax.vmap(lambda key: residuals(key, x, square, jnp.array([0.3]), pairs=8))
    )
    found = one(jax.random.split(KEY, 512))[:, 0]
    stderr = found.std(0) / 512**0.5
    expected = (x - x**2 - 0.3**2) / 0.3
    assert bool(jnp.all(jnp.abs(found.mean(0) - expected) < 4.5 * stderr))


def test_without_noise_it_is_the_control(known):
    law, x, *_ = known
    given = Given(law, image=x)
    shared = dict(block=1, pool_width=1.0, filter_width=1.5, filter_weight=0.3)
    control = run(DenoisedDistance(sigma=0.2, **shared), given)
    found = run(PriorResidual(levels=(0.2,), pairs=0, **shared), given)
    np.testing.assert_allclose(0.2**2 * found.heatmap, control.heatmap, rtol=1e-4)


def test_levels_add_up(known):
    given = Given(known[0], image=known[1])
    each = [
        run(PriorResidual(levels=levels, pairs=0, block=1), given).heatmap
        for levels in ((0.1,), (0.3,), (0.1, 0.3))
    ]
    np.testing.assert_allclose(each[0] + each[1], each[2], rtol=1e-4)


def test_wrong_settings_are_refused():
    for settings in (dict(pairs=-1), dict(levels=(0.0,)), dict(filter_weight=2.0)):
        with pytest.raises(ValueError, match=next(iter(settings))):
            PriorResidual(**settings)
