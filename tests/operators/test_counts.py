"""Photon counts against the Poisson law, and whitened measurements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators.counts import Diagonal, log_counts
from klip_jax.operators.ct import ParallelBeam


def test_logarithms_have_the_noise_they_state():
    y = jnp.linspace(0.0, 60.0, 7)
    settings = dict(incident=1e4, attenuation=0.05)
    keys = jax.random.split(jax.random.key(0), 4000)
    found, std = jax.vmap(lambda key: log_counts(key, y, **settings))(keys)
    counted = 1e4 * np.exp(-0.05 * np.asarray(y))
    expected = 1 / (0.05 * np.sqrt(counted))
    error = expected / np.sqrt(len(keys))
    bias = 1 / (2 * 0.05 * counted)
    assert np.all(abs(found.mean(0) - y - bias) < 4 * error)
    # 4 standard errors of a standard deviation, and the terms of order 1 / n.
    tolerance = 4 / np.sqrt(2 * len(keys)) + 2 / counted
    assert np.all(abs(found.std(0) / expected - 1) < tolerance)
    np.testing.assert_allclose(std.mean(0), expected, rtol=5e-3)


def test_a_bin_without_photons_stays_finite():
    y, std = log_counts(
        jax.random.key(0), jnp.full(9, 1e3), incident=10.0, attenuation=1.0
    )
    np.testing.assert_allclose(y, np.log(10.0), rtol=1e-6)
    np.testing.assert_allclose(std, 1.0, rtol=1e-6)


def test_whitened_measurements_have_noise_of_one():
    operator = ParallelBeam((12, 12, 1), views=40)
    clean = operator(jnp.ones(operator.in_shape))
    y, std = log_counts(jax.random.key(1), clean, incident=1e5, attenuation=0.1)
    whitened = Diagonal(operator.out_shape, 1 / std) @ operator
    residual = y / std - whitened(jnp.ones(operator.in_shape))
    assert abs(residual.var() - 1) < 4 * np.sqrt(2 / residual.size)


@pytest.mark.parametrize("settings", [{"incident": 0.0}, {"attenuation": -1.0}])
def test_wrong_counts_raise(settings):
    name, value = next(iter(settings.items()))
    settings = dict(incident=1.0, attenuation=1.0) | settings
    with pytest.raises(ValueError, match=f"{name}={value}"):
        log_counts(jax.random.key(0), jnp.ones(3), **settings)


@pytest.mark.parametrize(
    ("factors", "message"),
    [(np.ones(3), "broadcast"), (0.0, "all 0"), (np.inf, "finite")],
)
def test_wrong_factors_raise(factors, message):
    with pytest.raises(ValueError, match=message):
        Diagonal((4, 5), factors)
