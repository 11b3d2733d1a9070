import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import sde
from klip_jax.detectors.measurement_kl import MeasurementKL, disagreement
from klip_jax.operators.identity import Identity
from klip_jax.priors.analytic import Gaussian, gaussian_kl
from klip_jax.types import Given, Scan

SHAPE, KEY = (3, 2, 1), jax.random.key(0)


def priors():
    narrow = Gaussian(jnp.zeros(SHAPE), jnp.eye(6), jnp.linspace(0.1, 0.6, 6))
    return narrow, Gaussian(jnp.full(SHAPE, 0.2), jnp.eye(6), jnp.full(6, 0.8))


def test_its_mean_over_draws_is_the_kl():
    p, q = priors()
    levels, n = sde.log_levels(48, 1e-2, 50.0), 4000

    @jax.jit
    def totals(keys):
        def one(key):
            key_x, key_z = jax.random.split(key)
            return disagreement(key_z, p.sample(key_x), p, q, levels).sum()

        return jax.vmap(one)(keys)

    found = totals(jax.random.split(KEY, n))
    stderr = float(found.std() / n**0.5)
    assert abs(float(found.mean() - gaussian_kl(p, q))) < 4 * stderr + 2e-3


def test_one_prior_twice_is_no_disagreement_and_none_is_refused():
    p, q = priors()
    given = Given(p, Scan(Identity(SHAPE), jnp.ones(SHAPE), 0.1))
    settings = dict(block=1, levels=(0.1, 0.2))
    same = MeasurementKL(other=p, **settings).look(KEY, given)
    np.testing.assert_array_equal(same, 0)
    assert MeasurementKL(other=q, **settings).look(KEY, given).min() > 0
    with pytest.raises(ValueError, match=r"compares two priors: build it with other="):
        MeasurementKL(**settings).look(KEY, given)
    with pytest.raises(ValueError, match="needs at least 2"):
        MeasurementKL(other=p, levels=(0.1,))
