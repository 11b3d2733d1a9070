import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import sde
from klip_jax.detectors import diffpath
from klip_jax.priors.analytic import Gaussian

SHAPE = (4, 3, 2)


@pytest.fixture(scope="module")
def known():
    """Features of 120 images, six numbers of very different scales, correlated."""
    rng = np.random.default_rng(0)
    mix = np.eye(6) + 0.3 * rng.normal(size=(6, 6))
    draws = rng.normal(size=(120, 6)) @ mix.T + 10
    return np.abs(draws) * np.geomspace(1, 1e5, 6)


def test_the_path_of_a_gaussian_prior():
    # Along an eigenvector eps = s / (lambda + s^2) c, and c grows by (s' - s) eps.
    d, levels = 24, sde.log_levels(10, 0.02, 10.0)
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))
    spectrum = np.geomspace(0.003, 0.3, d)
    prior = Gaussian(jnp.full(SHAPE, 0.5), jnp.float32(basis), jnp.float32(spectrum))
    x = prior.sample(jax.random.key(0))
    found = jax.jit(diffpath.features)(x, prior, levels)

    s, c, eps = np.asarray(levels, np.float64), basis.T @ (np.ravel(x) - 0.5), []
    for i in range(10):
        eps.append(s[i] / (spectrum + s[i] ** 2) * c)
        c = c + (s[min(i + 1, 9)] - s[i]) * eps[-1]
    eps = np.array(eps) @ basis.T
    rate = 10 * np.diff(eps, axis=0)
    expected = [(v**p).sum() for v in (eps, rate) for p in (1, 2, 3)]
    scale = [(np.abs(v) ** p).sum() for v in (eps, rate) for p in (1, 2, 3)]
    np.testing.assert_allclose(
        found / np.array(scale), expected / np.array(scale), atol=1e-4
    )
    assert len(found) == len(diffpath.FEATURES)
    assert diffpath.network_calls(10) == 10


def test_units_do_not_matter(known):
    # Four times the pixels, four times the sums.
    larger, odd = 4 * known, known[:5] * 1.5
    for fit, score, settings in (
        (diffpath.fit_1d, diffpath.score_1d, {}),
        (diffpath.fit_6d, diffpath.score_6d, dict(components=(1,), folds=3)),
    ):
        plain, scaled = fit(known, **settings), fit(larger, **settings)
        np.testing.assert_allclose(
            score(scaled, 4 * odd), score(plain, odd), rtol=1e-4, atol=1e-4
        )


def test_the_kernel_is_relative_to_the_spread(known):
    speed = np.sqrt(known[:, 4])
    law = diffpath.fit_1d(known, bandwidth=0.2)
    at = known[:3].copy()
    z = (np.sqrt(at[:, 4])[:, None] - speed) / speed.std() / 0.2
    density = np.exp(-(z**2) / 2).mean(1) / (0.2 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(diffpath.score_1d(law, at), -np.log(density), rtol=1e-6)


def test_odd_features_score_higher(known):
    law = diffpath.fit_6d(known, components=(1, 2), covariances=("full",), folds=3)
    # Along the combination of numbers that varies least, each of them as usual.
    mean, std = known.mean(0), known.std(0)
    powers, combinations = np.linalg.eigh(np.corrcoef(known.T))
    odd = mean + 4 * std * np.sqrt(powers[0]) * combinations[:, 0]
    assert np.all(np.abs(odd - mean) < 2 * std)
    usual, unusual = diffpath.score_6d(law, known), diffpath.score_6d(law, odd[None])
    assert unusual > np.quantile(usual, 0.98)
    far = known[:1] * np.array([1, 1, 1, 1, 4, 1])
    assert diffpath.score_1d(diffpath.fit_1d(known), far) > 10


def test_too_few_images_are_refused(known):
    with pytest.raises(ValueError, match="20 images in 10 folds leave 18 to fit"):
        diffpath.fit_6d(known[:20], components=(50,))
