import jax
import jax.numpy as jnp
import numpy as np

from klip_jax.detectors.scoped import SCOPED, ratio
from klip_jax.priors.analytic import Gaussian

SHAPE, KEY = (4, 4, 1), jax.random.key(0)


def test_ratio_of_a_white_prior():
    # g = -(x - m) / (v + s^2), div g = -d / (v + s^2) for any signs.
    prior = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(16), jnp.full(16, 0.25))
    x = jax.random.uniform(KEY, SHAPE)
    expected = np.sum((np.asarray(x) - 0.5) ** 2) / (16 * (0.25 + 0.3**2))
    np.testing.assert_allclose(ratio(KEY, x, prior, 0.3), expected, rtol=1e-5)


def test_states_of_the_prior_are_near_1():
    # E |g|^2 = -E div g over p(x_s), Hyvarinen's identity; here both by many draws.
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))
    spectrum = jnp.geomspace(0.01, 1, 16)
    prior = Gaussian(jnp.zeros(SHAPE), jnp.float32(basis), spectrum)
    states = jax.vmap(prior.noised(0.4).sample)(jax.random.split(KEY, 4000))
    one = jax.jit(jax.vmap(lambda key, x: ratio(key, x, prior, 0.4)))
    found = one(jax.random.split(jax.random.key(1), 4000), states)
    # Signs and states are independent: E T = E |g|^2 E (1 / div), a little above 1.
    assert 0.97 < found.mean() < 1.15


def test_the_most_unusual_level_decides():
    usual = jax.random.normal(KEY, (200, 2)) * jnp.array([0.1, 3.0]) + 5
    detector = SCOPED().fit(usual)
    three = jnp.array([[5.0, 5.0], [5.6, 5.0], [5.0, 23.0]])
    plain, first, second = jax.jit(jax.vmap(lambda t: detector.judge(t).score))(three)
    assert first > plain + 5 and second > plain + 5
    # Six standard deviations are as odd at either level.
    np.testing.assert_allclose(first, second, rtol=0.4)
