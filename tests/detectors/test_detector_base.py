import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.detectors.base import level_statistics, reconstruct, z_score
from klip_jax.guidance.base import NoMeasurement
from klip_jax.priors.analytic import Gaussian

SHAPE, SIGMA = (4, 4, 1), 0.4
pytestmark = pytest.mark.usefixtures("compile_fast")


def coloured_prior():
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))
    spectrum = jnp.geomspace(0.003, 0.3, 16)
    return Gaussian(jnp.full(SHAPE, 0.5), jnp.float32(basis), spectrum)


@pytest.mark.parametrize("steps", [1, 5])
def test_the_chain_of_a_gaussian_prior(steps):
    # DDIM scales each eigenvector by k + (1 - k) lambda / (lambda + s^2), k = s' / s.
    key, prior = jax.random.key(0), coloured_prior()
    x = prior.sample(jax.random.key(1))
    run = jax.jit(reconstruct, static_argnames="steps")
    found = run(key, x, prior, NoMeasurement(), SIGMA, steps=steps)
    z = jax.random.normal(jax.random.fold_in(key, 0), SHAPE)
    levels = SIGMA * (1 - np.arange(steps + 1) / steps) ** 2
    scale = 1
    for s, s_next in itertools.pairwise(levels):
        keep = s_next / s
        scale *= keep + (1 - keep) * prior.spectrum / (prior.spectrum + s**2)
    modes = prior.basis.T @ (x + SIGMA * z - prior.mean).ravel()
    expected = prior.mean + (prior.basis @ (scale * modes)).reshape(SHAPE)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_without_steps_there_is_no_chain():
    x = jnp.zeros(SHAPE)
    with pytest.raises(ValueError, match="steps=0: the chain needs at least 1"):
        reconstruct(
            jax.random.key(0), x, coloured_prior(), NoMeasurement(), 1.0, steps=0
        )


def test_z_scores_of_maps_and_of_their_means_agree():
    maps = np.random.default_rng(1).gamma(2.0, size=(20, 3, 4, 5)).astype(np.float32)
    maps *= np.array([1, 10, 100])[:, None, None]
    mean, std = level_statistics(maps)
    np.testing.assert_allclose(mean, maps.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(std, maps.mean((2, 3)).std(0, ddof=1), rtol=1e-5)
    of = jax.vmap(lambda errors: z_score(errors, mean, std))
    by_map, by_mean = of(maps), of(maps.mean((2, 3)))
    assert by_map.shape == (20, 4, 5)
    np.testing.assert_allclose(by_map.mean((1, 2)), by_mean, atol=1e-4)
    np.testing.assert_allclose(by_mean.mean(), 0, atol=1e-4)
