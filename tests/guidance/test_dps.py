import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.guidance.dps import DPS, DPSWithoutJacobian

pytestmark = pytest.mark.usefixtures("x64")

# Section 2.3 of the theory, at these nodes: I of DPS with the true noise, without J.
NODES = np.geomspace(0.01, 50, 12)
TABLE = [(0, 0.0713, 0.0720), (2, 1.535, 1.854), (4, 49.8, 108), (6, 4595, 1.6e4)]


@pytest.mark.parametrize(("node", "dps", "without"), TABLE)
def test_bias_on_a_smooth_prior(node, dps, without):
    bed = beds.g16()
    for kind, expected in ((DPS, dps), (DPSWithoutJacobian, without)):
        found = sum(beds.integrand(bed, kind(), NODES[node])).sum()
        # The table is rounded to three digits, from 1e4 on to two.
        np.testing.assert_allclose(found, expected, 0.05 if expected > 1e4 else 0.005)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 6.0])
def test_bias_on_a_white_prior_is_the_ratio_of_the_variances(sigma):
    # A A^T = a^2 I: exact / DPS = s^2 / (v a^2 + s^2), and J = v / sigma^2.
    bed = beds.white(m=8)
    bed = bed._replace(matrix=1.5 * jnp.eye(8))
    u = bed.prior.sample(jax.random.key(0))
    v, s2 = bed.prior.variance(sigma), bed.noise_std**2
    _, exact = bed.exact().score(bed.prior, bed.scan, u, sigma)
    _, dps = DPS().score(bed.prior, bed.scan, u, sigma)
    _, without = DPSWithoutJacobian().score(bed.prior, bed.scan, u, sigma)
    np.testing.assert_allclose(dps * s2 / (v * 1.5**2 + s2), exact, 1e-9)
    np.testing.assert_allclose(without * v / sigma**2, dps, 1e-9)


@pytest.mark.parametrize("kind", [DPS, DPSWithoutJacobian])
def test_exact_as_sigma_vanishes(kind):
    bed = beds.g16()
    u = bed.posterior.sample(jax.random.key(1))
    _, exact = bed.exact().score(bed.prior, bed.scan, u, 1e-4)
    _, found = kind().score(bed.prior, bed.scan, u, 1e-4)
    np.testing.assert_allclose(found, exact, atol=1e-3 * jnp.abs(exact).max())
