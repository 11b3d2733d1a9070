"""A network that gives a Gaussian's exact score, in [0, 1] and in [-1, 1]."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.priors.score import Score

MEAN, VARIANCE = 0.4, 0.05


class ExactScore(nn.Module):
    mean: float
    variance: float

    def __call__(self, x, sigma):
        return (self.mean - x) / (self.variance + sigma**2)


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("sigma", [0.01, 0.3, 5.0])
def test_it_is_the_denoiser_of_that_gaussian(low, sigma):
    width = 1 - low
    prior = Score({}, ExactScore(width * MEAN + low, width**2 * VARIANCE), low=low)
    x = np.linspace(-1, 2, 12, dtype=np.float32).reshape(3, 4, 1)
    expected = MEAN + VARIANCE / (VARIANCE + sigma**2) * (x - MEAN)
    found = jax.jit(lambda prior, x, s: prior(x, s))(prior, x, jnp.float32(sigma))
    np.testing.assert_allclose(found, expected, atol=2e-6 * (1 + sigma))


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="low=1"):
        Score({}, ExactScore(0.0, 1.0), low=1.0)
