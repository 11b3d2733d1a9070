import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.detectors import msma
from klip_jax.detectors.msma import MSMA, BlockMSMA
from klip_jax.priors.analytic import Gaussian
from klip_jax.types import Given

SHAPE, LEVELS = (4, 6, 2), jnp.float32([0.02, 0.2, 2.0])
fit, fit_positions = jax.jit(msma.fit), jax.jit(msma.fit_positions)


@pytest.fixture(scope="module")
def correlated():
    """Draws [2000, 3] of a Gaussian with strong correlation and unequal scales."""
    rng = np.random.default_rng(0)
    mix = np.array([[1.0, 0, 0], [0.9, 0.3, 0], [0.5, 0.1, 0.2]])
    draws = (5 + rng.normal(size=(2000, 3)) @ mix.T) * np.array([1, 10, 100])
    return jnp.float32(draws)


def test_scores_of_a_gaussian_prior():
    # sigma |score| = sigma |(Sigma + sigma^2)^-1 (x - mean)|.
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(48, 48)))
    spectrum = np.geomspace(0.003, 0.3, 48)
    prior = Gaussian(jnp.full(SHAPE, 0.5), jnp.float32(basis), jnp.float32(spectrum))
    x = prior.sample(jax.random.key(0))
    look = jax.jit(lambda detector, given: detector.look(jax.random.key(0), given))
    levels, given = tuple(LEVELS), Given(prior, image=x)
    image = look(MSMA(levels), given)
    blocks = look(BlockMSMA(levels=levels, block=2), given)
    assert blocks.shape == (2, 3, 3)
    for i, s in enumerate(np.asarray(LEVELS, np.float64)):
        modes = basis.T @ np.asarray(x - 0.5, np.float64).ravel()
        score = (basis @ (modes / (spectrum + s**2))).reshape(SHAPE)
        np.testing.assert_allclose(image[i], s * np.linalg.norm(score), rtol=1e-4)
        # The block of rows 2, 3 and columns 4, 5.
        corner = s * np.linalg.norm(score[2:, 4:])
        np.testing.assert_allclose(blocks[1, 2, i], corner, rtol=1e-3)


def test_blocks_must_divide():
    prior = Gaussian(jnp.zeros(SHAPE), jnp.eye(48), jnp.ones(48))
    with pytest.raises(ValueError, match="block=4 does not divide a 4x6 image"):
        BlockMSMA().look(jax.random.key(0), Given(prior, image=jnp.zeros(SHAPE)))


def test_the_law_is_that_of_the_features(correlated):
    law = fit(correlated, ridge=1e-6)
    exact = np.asarray(correlated, np.float64)
    covariance = np.cov(exact.T)
    np.testing.assert_allclose(law.mean, exact.mean(0), rtol=1e-5)
    inverse = law.whitening.T @ law.whitening
    scale = np.sqrt(np.outer(*[np.diag(np.linalg.inv(covariance))] * 2))
    np.testing.assert_allclose(
        inverse / scale, np.linalg.inv(covariance) / scale, atol=1e-3
    )
    distance = msma.mahalanobis(law, correlated)
    # By construction of mean and covariance, (N - 1) / N * L.
    np.testing.assert_allclose(distance.mean(), 3 * 1999 / 2000, rtol=1e-3)
    _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
    expected = 0.5 * (distance + log_det)
    found = msma.negative_log_likelihood(law, correlated)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_units_do_not_matter(correlated):
    scale = jnp.float32([1e3, 1e-3, 7])
    plain, scaled = (
        msma.mahalanobis(fit(found), found)
        for found in (correlated, correlated * scale)
    )
    np.testing.assert_allclose(scaled, plain, rtol=1e-2, atol=1e-3)


def test_the_ridge_bounds_what_a_difference_of_twins_can_do(correlated):
    twins = correlated[:, :1] * jnp.ones(2)
    law = fit(twins, ridge=1e-2)
    std = twins[:, 0].std()
    apart = law.mean + jnp.float32([1, -1]) * std
    # Along (1, -1) the correlation is 0 + ridge: |(1, -1)|^2 / ridge.
    np.testing.assert_allclose(msma.mahalanobis(law, apart), 2 / 1e-2, rtol=1e-2)


def test_features_that_never_vary_give_numbers():
    constant = jnp.concatenate([jnp.full((9, 1), 3.0), jnp.zeros((9, 1))], 1)
    law = fit(constant)
    assert bool(jnp.isfinite(msma.mahalanobis(law, constant)).all())


def test_one_law_for_all_positions_or_one_for_each():
    rng = np.random.default_rng(1)
    centres = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    blocks = jnp.float32(centres[..., None] + rng.normal(size=(50, 2, 3, 4)))
    pooled, each = fit(blocks), fit_positions(blocks)
    assert pooled.mean.shape == (4,) and each.mean.shape == (2, 3, 4)
    np.testing.assert_allclose(each.mean[1, 2], blocks[:, 1, 2].mean(0), rtol=1e-5)
    one = fit(blocks[:, 1, 2])
    found = msma.mahalanobis(each, blocks[0])
    assert found.shape == msma.mahalanobis(pooled, blocks[0]).shape == (2, 3)
    np.testing.assert_allclose(
        found[1, 2], msma.mahalanobis(one, blocks[0, 1, 2]), rtol=1e-3
    )


def test_positions_of_their_own():
    blocks = jnp.float32(np.random.default_rng(2).normal(size=(50, 2, 3, 4)))
    detector = BlockMSMA(block=2, per_position=True, top_share=0.0).fit(blocks)
    detection = detector.judge(blocks[0])
    likelihood = msma.negative_log_likelihood(fit_positions(blocks), blocks[0])
    np.testing.assert_allclose(detection.heatmap[::2, ::2], likelihood, rtol=1e-4)
    np.testing.assert_allclose(detection.score, 4 * likelihood.max(), rtol=1e-4)
