import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.detectors import klip_release
from klip_jax.detectors.klip_release import CONFIGS, ReleasedKLIP
from klip_jax.operators.ct import ParallelBeam
from klip_jax.operators.identity import Identity
from klip_jax.priors.analytic import Gaussian
from klip_jax.types import Scan

SHAPE = (8, 8, 1)
PRIOR = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(64), jnp.full(64, 0.04))
OPERATOR = ParallelBeam(SHAPE, views=5)
run = jax.jit(klip_release.maps, static_argnames=("samples", "steps"))


@pytest.fixture(scope="module")
def measured():
    return Scan(OPERATOR, OPERATOR(PRIOR.sample(jax.random.key(0))), 1.0)


def test_the_norm_is_the_largest_singular_value():
    columns = jax.vmap(OPERATOR)(jnp.eye(64).reshape(-1, *SHAPE)).reshape(64, -1)
    largest = jnp.linalg.norm(columns, ord=2)
    np.testing.assert_allclose(klip_release.norm(OPERATOR), largest, rtol=0.01)
    np.testing.assert_allclose(klip_release.norm(Identity(SHAPE)), 1, rtol=1e-5)


def test_the_unit_of_y_changes_nothing(measured):
    given = dict(samples=2, steps=20)
    found = run(jax.random.key(1), measured, PRIOR, **given)
    tripled = Scan(3 * OPERATOR, 3 * measured.y, 1.0)
    other = run(jax.random.key(1), tripled, PRIOR, **given)
    np.testing.assert_allclose(found.samples, other.samples, rtol=1e-3)
    np.testing.assert_allclose(found.mean, other.mean, atol=1e-4)


def test_scores_are_largest_blocks_with_a_jackknife_error():
    samples = jax.random.uniform(jax.random.key(2), (4, 2, 64, 64))
    found = klip_release.Maps(samples, jnp.zeros((64, 64, 1)))
    mean = np.asarray(samples).mean(0)
    for config, window, block in (
        ("chaos_song_image", 0, 4),
        ("chaos_song_dataset", 1, 4),
        ("chaos_padis_image", 0, 1),
        ("celeba_image", 0, 1),
    ):
        detection = ReleasedKLIP(config=config).judge(found)
        np.testing.assert_allclose(detection.heatmap, mean[window], rtol=1e-5)
        blocks = mean[window].reshape(64 // block, block, 64 // block, block)
        largest = blocks.sum((1, 3)).max()
        np.testing.assert_allclose(detection.score, largest, rtol=1e-5)
        assert 0 < detection.stderr < detection.score
    same = found._replace(samples=jnp.repeat(samples[:1], 4, 0))
    assert ReleasedKLIP(config="celeba_image").judge(same).stderr < 1e-5


def test_wrong_settings_are_refused(measured):
    with pytest.raises(ValueError, match="samples=1"):
        ReleasedKLIP(samples=1)
    with pytest.raises(ValueError, match="window"):
        klip_release.maps(jax.random.key(0), measured, PRIOR, steps=3)
    with pytest.raises(ValueError, match="config='mine': choose one of"):
        ReleasedKLIP(config="mine")
    with pytest.raises(ValueError, match="zeta=0"):
        ReleasedKLIP(zeta=0.0)
    assert len(CONFIGS) == 4 and ReleasedKLIP().network_calls == 800
