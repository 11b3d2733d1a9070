import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.detectors.base import Detector
from klip_jax.detectors.base_fit import spread
from klip_jax.detectors.base_map import map_detection
from klip_jax.detectors.base_reconstruction import LevelLaw, reconstruct
from klip_jax.guidance.none import NoGuidance
from klip_jax.priors.analytic import Gaussian
from klip_jax.types import Given

SHAPE, SIGMA = (4, 4, 1), 0.4


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
    found = run(key, x, prior, SIGMA, steps=steps, guidance=NoGuidance())
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
    given = jax.random.key(0), jnp.zeros(SHAPE), coloured_prior(), 1.0
    with pytest.raises(ValueError, match="steps=0: the chain needs at least 1"):
        reconstruct(*given, steps=0, guidance=NoGuidance())


def test_z_scores_of_maps_and_of_their_means_agree():
    maps = np.random.default_rng(1).gamma(2.0, size=(20, 3, 4, 5)).astype(np.float32)
    maps *= np.array([1, 10, 100])[:, None, None]
    law = LevelLaw.of(jnp.asarray(maps))
    np.testing.assert_allclose(law.mean, maps.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(law.std, maps.mean((2, 3)).std(0, ddof=1), rtol=1e-5)
    by_map, by_mean = (jax.vmap(law.z_score)(m) for m in (maps, maps.mean((2, 3))))
    assert by_map.shape == (20, 4, 5)
    np.testing.assert_allclose(by_map.mean((1, 2)), by_mean, atol=1e-4)
    np.testing.assert_allclose(by_mean.mean(), 0, atol=1e-4)
    detection = law.detection(jnp.asarray(maps[3]))
    np.testing.assert_allclose(detection.score, by_mean[3], atol=1e-4)
    np.testing.assert_allclose(detection.heatmap, by_map[3], rtol=1e-5)


def test_a_spread_is_never_zero():
    values = jnp.float32(np.random.default_rng(2).normal(5, 2, (9, 3)))
    np.testing.assert_allclose(spread(values), values.std(0, ddof=1), rtol=1e-6)
    constant = jnp.float32([[3.0, 0.0]]) * jnp.ones((9, 1))
    assert np.all(spread(constant) > 0)
    # A rounding step of a constant is no evidence: it is well below one.
    step = np.spacing(np.float32(3.0)) / spread(constant)[0]
    assert step < 0.1
    with pytest.raises(ValueError, match="1 images: a spread needs at least 2"):
        spread(values[:1])


def test_a_map_is_scored_by_its_largest_blocks():
    heatmap = jnp.zeros((8, 8)).at[0, 0].set(5.0).at[7, 7].set(3.0).at[6, 6].set(1.0)
    largest = map_detection(heatmap, block=2, top_share=0.0)
    assert largest.score == 5 and np.isnan(largest.stderr)
    assert map_detection(heatmap, block=2, top_share=2 / 16).score == (5 + 4) / 2
    pooled = map_detection(heatmap, block=2, top_share=0.0, pool_width=1.0)
    np.testing.assert_allclose(pooled.heatmap.sum(), 9, rtol=1e-5)
    assert pooled.score < 5
    with pytest.raises(ValueError, match="block=3 does not divide a 8x8 image"):
        map_detection(heatmap, block=3, top_share=0.0)


def test_the_defaults_of_a_detector():
    detector = Detector()
    assert detector.needs == ("picture",) and not detector.fits
    assert detector.network_calls == 0 and detector.extras(None) == {}
    assert detector.fit(None) is detector and detector.unseen_factor({}) == 1
    for method in (
        lambda: detector.look(jax.random.key(0), Given(None)),
        lambda: detector.judge(None),
    ):
        with pytest.raises(NotImplementedError, match="Detector does not define"):
            method()
