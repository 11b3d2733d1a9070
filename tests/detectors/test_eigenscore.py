import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.detectors.eigenscore import EigenScore, leading
from klip_jax.priors.analytic import Gaussian, Mixture
from klip_jax.types import Given

SHAPE, KEY, SIGMA = (4, 4, 1), jax.random.key(0), 0.5
COUNTS = dict(modes=3, iterations=60)


@pytest.fixture(scope="module")
def gaussian():
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))
    spectrum = np.geomspace(0.001, 4, 16)
    return Gaussian(jnp.zeros(SHAPE), jnp.float32(basis), jnp.float32(spectrum))


def test_leading_eigenvalues_of_a_gaussian_posterior(gaussian):
    # lambda s^2 / (lambda + s^2), and the prior's own eigenvectors.
    find = jax.jit(lambda: leading(KEY, gaussian.mean, gaussian, SIGMA, **COUNTS))
    values, vectors = find()
    spectrum = np.asarray(gaussian.spectrum)
    exact = spectrum * SIGMA**2 / (spectrum + SIGMA**2)
    np.testing.assert_allclose(values, exact[-3:], rtol=1e-3)
    overlap = np.asarray(vectors.reshape(3, 16) @ gaussian.basis[:, -3:])
    np.testing.assert_allclose(np.abs(overlap), np.eye(3), atol=0.03)


def test_the_map_sums_to_the_eigenvalues(gaussian):
    detector = EigenScore(levels=(SIGMA,), draws=1, **COUNTS)
    run = jax.jit(lambda: detector.look(KEY, Given(gaussian, image=gaussian.mean)))
    spectrum = np.asarray(gaussian.spectrum)[-3:]
    exact = np.sum(spectrum * SIGMA**2 / (spectrum + SIGMA**2))
    np.testing.assert_allclose(run().sum(), exact, rtol=1e-3)


def test_between_two_modes_the_prior_is_less_certain():
    # Cov = v I + w (1 - w) (m1 - m2)^2 between two narrow Gaussians.
    narrow = [
        Gaussian(jnp.full(SHAPE, m), jnp.eye(16), jnp.full(16, 1e-4))
        for m in (0.0, 1.0)
    ]
    prior = Mixture.of([0.5, 0.5], narrow)
    detector = EigenScore(levels=(0.5,), modes=1, iterations=6, draws=8)
    run = jax.jit(lambda x: detector.look(KEY, Given(prior, image=x)).sum())
    assert run(jnp.full(SHAPE, 0.5)) > 5 * run(jnp.zeros(SHAPE))


@pytest.mark.parametrize("name", ["modes", "iterations", "draws"])
def test_wrong_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        EigenScore(**{name: 0})
