"""Heun's method with fresh noise along the way."""

import jax
import numpy as np
import pytest

from klip_jax.guidance.none import NoGuidance
from klip_jax.priors.function import prior
from klip_jax.samplers.heun import Heun

MEAN, VARIANCE = 0.5, 0.04
SIDE = 128


def white(x, sigma):
    """Denoise white pixels, N(1/2, 1/25)."""
    return (VARIANCE * x + sigma**2 * MEAN) / (VARIANCE + sigma**2)


@jax.jit
def step(sampler, key, x, sigma, sigma_next):
    denoiser = prior(white, variance=lambda s: VARIANCE * s**2 / (VARIANCE + s**2))
    given = denoiser, NoGuidance(), None
    return sampler.step(key, x, *given, sigma, sigma_next)[0]


def test_churn_is_a_step_from_higher_up():
    key, c, sigma = jax.random.key(0), 0.3, 0.5
    x = jax.random.uniform(jax.random.key(1), (8, 8, 1))
    z = jax.random.normal(key, x.shape)
    higher = x + sigma * np.sqrt((1 + c) ** 2 - 1) * z
    expected = step(Heun(), key, higher, (1 + c) * sigma, 0.4)
    found = step(Heun(churn=c), key, x, sigma, 0.4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(
        step(Heun(churn=0.0), key, x, sigma, 0.4),
        step(Heun(), jax.random.key(2), x, sigma, 0.4),
    )


def test_churn_forgets_an_error_that_the_flow_keeps():
    """A chain that is too wide at the start comes out as it should."""
    wide, right = (f * np.sqrt(VARIANCE + 1.0) for f in (1.5, 1.0))
    levels = np.geomspace(1.0, 0.02, 31)
    keys = jax.random.split(jax.random.key(3), len(levels))
    start = jax.random.normal(keys[-1], (SIDE, SIDE, 1))

    def spread(sampler, width):
        x = MEAN + width * start
        for key, *pair in zip(keys, levels, levels[1:], strict=False):
            x = step(sampler, key, x, *pair)
        return float(x.std()) / np.sqrt(VARIANCE + 0.02**2)

    assert spread(Heun(), wide) == pytest.approx(1.5, abs=0.03)
    assert spread(Heun(churn=0.3), wide) == pytest.approx(1.0, abs=0.05)
    assert spread(Heun(churn=0.3), right) == pytest.approx(1.0, abs=0.03)


def test_churn_is_refused():
    with pytest.raises(ValueError, match=r"churn=-0.1: .* must be >= 0"):
        Heun(churn=-0.1)
