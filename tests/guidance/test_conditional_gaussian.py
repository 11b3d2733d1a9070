import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import kl, sde
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.guidance.pigdm import PiGDM
from klip_jax.priors.analytic import Gaussian
from klip_jax.scan import conditional_shift

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("sigma", [0.01, 0.3, 8.0])
def test_exact_for_a_white_prior(sigma):
    bed = beds.white()
    u = bed.prior.sample(jax.random.key(0))
    found = ConditionalGaussian().score(bed.prior, bed.scan, u, sigma)
    expected = bed.exact().score(bed.prior, bed.scan, u, sigma)
    np.testing.assert_allclose(found[0], expected[0], 1e-12)
    np.testing.assert_allclose(found[1], expected[1], 1e-8)


def test_pigdm_with_the_mean_jacobian():
    bed, sigma = beds.g16(), 0.4
    u = bed.prior.sample(jax.random.key(1))
    _, score = ConditionalGaussian().score(bed.prior, bed.scan, u, sigma)
    jacobian = jax.jacfwd(lambda u: bed.prior(u, sigma))(u).reshape(16, 16)
    mean = jnp.trace(jacobian) / 16
    np.testing.assert_allclose(mean, bed.prior.variance(sigma) / sigma**2, 1e-10)
    _, pigdm = PiGDM().score(bed.prior, bed.scan, u, sigma)
    through = jacobian.T @ (score.ravel() / mean)
    np.testing.assert_allclose(through, pigdm.ravel(), 1e-7, 1e-9)


def test_bias_on_a_smooth_prior_in_total():
    bed, levels = beds.g16(), sde.log_levels(64, 0.002, 80.0)
    guidance = ConditionalGaussian()
    curve = jax.jit(jax.vmap(lambda s: sum(beds.integrand(bed, guidance, s)).sum()))(
        levels
    )
    # 35 % low: the mean Jacobian is too small for the strong modes of the prior.
    np.testing.assert_allclose(kl.trapezoid(levels) @ curve / beds.G16, 0.654, 1e-3)


@pytest.mark.parametrize("inflation", [0.5, 3.0])
def test_prior_inflation_is_a_wider_prior(inflation):
    bed, sigma = beds.white(), 0.3
    u = bed.prior.sample(jax.random.key(4))
    inflated = ConditionalGaussian(inflation)
    variance = inflated.variance(bed.prior, sigma)
    np.testing.assert_allclose(variance, inflation * bed.prior.variance(sigma), 1e-12)
    x0, score = inflated.score(bed.prior, bed.scan, u, sigma)
    local = Gaussian(x0, jnp.eye(8), jnp.full(8, variance))
    mean = local.posterior(bed.matrix, bed.y, bed.noise_std).mean
    np.testing.assert_allclose(x0 + sigma**2 * score, mean, 1e-9)


def test_draws_have_the_conditional_mean_and_covariance():
    bed, sigma, n = beds.white(), 0.8, 20_000
    x0 = bed.prior.sample(jax.random.key(2))
    guidance = ConditionalGaussian()
    variance = guidance.variance(bed.prior, sigma)

    @jax.jit
    @jax.vmap
    def draw(key):
        return guidance.draw(key, bed.prior, bed.scan, x0, sigma)

    draws, shifts = draw(jax.random.split(jax.random.key(3), n))
    local = Gaussian(x0, jnp.eye(8), jnp.full(8, variance))
    law = local.posterior(bed.matrix, bed.y, bed.noise_std)
    mean = x0 + conditional_shift(bed.scan, x0, variance)
    np.testing.assert_allclose(mean, law.mean, 1e-9)
    np.testing.assert_allclose(x0 + shifts[:5], [mean] * 5, 1e-12)
    assert_law(draws.reshape(n, -1), law)


def assert_law(draws, law):
    """Compare means and covariances, 4.5 standard errors for each entry."""
    n, covariance = len(draws), law.covariance
    centred, spread = draws - law.mean.ravel(), jnp.diag(covariance)
    assert jnp.all(jnp.abs(centred.mean(0)) <= 4.5 * jnp.sqrt(spread / n))
    stderr = jnp.sqrt((covariance**2 + jnp.outer(spread, spread)) / n)
    assert jnp.all(jnp.abs(centred.T @ centred / n - covariance) <= 4.5 * stderr)


@pytest.mark.parametrize("prior_inflation", [0, -1.0, np.inf, np.nan])
def test_wrong_settings_are_refused(prior_inflation):
    with pytest.raises(ValueError, match="prior_inflation="):
        ConditionalGaussian(prior_inflation)


def test_inflation_is_a_leaf_and_does_not_recompile():
    bed = beds.white()
    u = bed.prior.sample(jax.random.key(5))
    run = jax.jit(lambda guidance: guidance.score(bed.prior, bed.scan, u, 0.3)[1])
    first, second = (run(ConditionalGaussian(v)) for v in (1.0, 3.0))
    assert run._cache_size() == 1 and jnp.abs(first - second).max() > 1e-3
