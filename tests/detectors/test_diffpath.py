import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

from klip_jax import sde
from klip_jax.detectors import diffpath
from klip_jax.detectors.base_density import COVARIANCES, fewest, kernels, mixture
from klip_jax.detectors.diffpath import DiffPath1D, DiffPath6D
from klip_jax.priors.analytic import Gaussian

SHAPE = (4, 3, 2)


@pytest.fixture(scope="module")
def known():
    """Features of 120 images, six numbers of very different scales, correlated."""
    rng = np.random.default_rng(0)
    mix = np.eye(6) + 0.3 * rng.normal(size=(6, 6))
    draws = rng.normal(size=(120, 6)) @ mix.T + 10
    return jnp.float32(np.abs(draws) * np.geomspace(1, 1e5, 6))


def scores(detector, found):
    return jax.jit(jax.vmap(lambda f: detector.judge(f).score))(jnp.float32(found))


def six(found, counts=(1,), folds=3):
    return DiffPath6D(components=counts, folds=folds).fit(found)


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


def test_units_do_not_matter(known):
    # Four times the pixels, four times the sums.
    odd = known[:5] * np.float32(1.5)
    for fit in (DiffPath1D().fit, six):
        plain, scaled = fit(known), fit(4 * known)
        np.testing.assert_allclose(
            scores(scaled, 4 * odd), scores(plain, odd), rtol=1e-4, atol=1e-4
        )


def test_the_kernel_is_relative_to_the_spread(known):
    speed = np.sqrt(np.asarray(known[:, 4], float))
    for bandwidth, width in ((0.2, 0.2), (0.0, (120 * 3 / 4) ** -0.2)):
        law = DiffPath1D(bandwidth=bandwidth).fit(known)
        z = (speed[:3, None] - speed) / speed.std() / width
        density = np.exp(-(z**2) / 2).mean(1) / (width * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(scores(law, known[:3]), -np.log(density), rtol=1e-5)


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("count", [2, 6])  # as many components as features, too
def test_the_mixture_is_that_of_scikit_learn(known, kind, count):
    law = mixture(known, components=(count,), covariances=(kind,), folds=3)
    z = StandardScaler().fit_transform(np.asarray(known, float))
    fitted = GaussianMixture(count, covariance_type=kind, max_iter=200, random_state=0)
    expected = fitted.fit(z).score_samples(z[:20])
    found = jax.vmap(law.log_prob)(jnp.asarray(known[:20]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_sums_over_many_pixels_keep_their_digits():
    # Beside a mean of 1e7 a deviation of 3 is 3 steps of float32.
    rng = np.random.default_rng(1)
    found = np.float32(1e7 + rng.integers(-8, 9, (50, 1)))
    law = kernels(found)
    exact = (found.astype(float) - found.astype(float).mean()) / law.std
    centred = (found - law.mean[0] - law.mean[1]) / law.std
    np.testing.assert_allclose(centred, exact, atol=1e-4)
    expected = KernelDensity(bandwidth="silverman").fit(exact).score_samples(exact)
    np.testing.assert_allclose(
        jax.vmap(law.log_prob)(jnp.asarray(found)), expected, atol=0.02
    )


def test_odd_features_score_higher(known):
    law = six(known, (1, 2))
    # Along the combination of numbers that varies least, each of them as usual.
    mean, std = np.mean(known, 0), np.std(known, 0)
    powers, combinations = np.linalg.eigh(np.corrcoef(np.asarray(known).T))
    odd = mean + 4 * std * np.sqrt(powers[0]) * combinations[:, 0]
    assert np.all(np.abs(odd - mean) < 2 * std)
    usual, unusual = scores(law, known), scores(law, odd[None])
    assert unusual > np.quantile(usual, 0.98)
    far = known[:1] * jnp.array([1, 1, 1, 1, 4, 1])
    assert scores(DiffPath1D().fit(known), far) > 10


def test_wrong_settings_are_refused(known):
    with pytest.raises(ValueError, match=r"folds=10: 20 images are fewer than the 56"):
        DiffPath6D(components=(50,)).fit(known[:20])
    for count, folds, components in ((10, 10, 5), (5, 5, 4), (4, 2, 2)):
        assert fewest((1, components), folds) == count
        few = DiffPath6D(components=(1, components), folds=folds)
        few.fit(known[:count])
        with pytest.raises(ValueError, match=f"{count - 1} images are fewer than the"):
            few.fit(known[: count - 1])
    with pytest.raises(ValueError, match="folds=1: must be an integer >= 2"):
        DiffPath6D(folds=1)
    with pytest.raises(ValueError, match="1 images: a density needs at least 2"):
        DiffPath1D().fit(known[:1])
    for levels in ((0.1, 0.1), (1.0, 0.5), (0.0, 1.0), (0.1, float("nan"))):
        with pytest.raises(ValueError, match=r"levels=\("):
            DiffPath1D(levels=levels)
