import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import kl, sde
from klip_jax.priors.analytic import (
    Gaussian,
    Mixture,
    gaussian_kl,
    mixture_posterior_kl,
)

pytestmark = pytest.mark.usefixtures("x64")
PRIORS = {"Gaussian": beds.g16, "Mixture": beds.m16}


@pytest.fixture(scope="module")
def made():
    with jax.enable_x64(True):
        return {name: make() for name, make in PRIORS.items()}


@pytest.fixture(params=PRIORS)
def bed(request, made):
    return made[request.param]


def overall_mean(prior):
    if isinstance(prior, Gaussian):
        return prior.mean
    return jnp.tensordot(jnp.exp(prior.log_weights), prior.components.mean, 1)


def numpy_posterior(bed):
    """The dense formulas of section 1.1 of the theory."""
    sigma, a = np.asarray(bed.prior.covariance), np.asarray(bed.matrix)
    s = a @ sigma @ a.T + bed.noise_std**2 * np.eye(len(a))
    mu = np.asarray(bed.prior.mean).ravel()
    mean = mu + sigma @ a.T @ np.linalg.inv(s) @ (np.asarray(bed.y) - a @ mu)
    return mean, sigma - sigma @ a.T @ np.linalg.inv(s) @ a @ sigma


def test_denoiser_keeps_an_image_without_noise(bed):
    x = bed.prior.sample(jax.random.key(0))
    gap = jnp.linalg.norm(bed.prior(x, 1e-4) - x)
    assert gap <= 1e-8 / 0.01 * jnp.linalg.norm(x - overall_mean(bed.prior)) * 1.01


def test_denoiser_gives_the_mean_under_endless_noise(bed):
    x = 1e6 * jax.random.normal(jax.random.key(1), bed.shape)
    np.testing.assert_allclose(bed.prior(x, 1e6), overall_mean(bed.prior), atol=1e-4)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 4.0])
def test_denoiser_is_the_score(bed, sigma):
    # Tweedie: D = x + sigma^2 grad log p_sigma.
    x = bed.prior.sample(jax.random.key(2)) + sigma
    score = jax.grad(bed.prior.log_prob)(x, sigma)
    np.testing.assert_allclose(bed.prior(x, sigma), x + sigma**2 * score, atol=1e-10)


def test_density_integrates_to_one():
    # E_q[p / q] = 1 for draws of a wider Gaussian q.
    wide = Gaussian(jnp.zeros((2, 1, 1)), jnp.eye(2), jnp.full(2, 9.0))
    a = Gaussian(jnp.ones((2, 1, 1)), jnp.eye(2), jnp.array([1.0, 2.0]))
    p = Mixture.of([1.0, 3.0], [a, wide.replace(spectrum=jnp.ones(2))])

    def ratio(key):
        x = wide.sample(key)
        return jnp.exp(p.log_prob(x) - wide.log_prob(x))

    ratios = jax.jit(jax.vmap(ratio))(jax.random.split(jax.random.key(3), 20_000))
    mean, stderr = kl.mean_stderr(ratios)
    assert abs(mean - 1) <= 4 * stderr


@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_variance_is_the_denoising_error(sigma):
    bed = beds.g16()

    def error(key):
        key_x, key_z = jax.random.split(key)
        x0 = bed.prior.sample(key_x)
        x = x0 + sigma * jax.random.normal(key_z, x0.shape)
        return jnp.mean((bed.prior(x, sigma) - x0) ** 2)

    errors = jax.jit(jax.vmap(error))(jax.random.split(jax.random.key(4), 4096))
    mean, stderr = kl.mean_stderr(errors)
    assert abs(mean - bed.prior.variance(sigma)) <= 4 * stderr


def test_mixture_variance_is_a_lower_bound():
    prior, sigma = beds.m16().prior, 1.0

    def error(key):
        key_x, key_z = jax.random.split(key)
        x0 = prior.sample(key_x)
        x = x0 + sigma * jax.random.normal(key_z, x0.shape)
        return jnp.mean((prior(x, sigma) - x0) ** 2)

    errors = jax.jit(jax.vmap(error))(jax.random.split(jax.random.key(5), 4096))
    mean, stderr = kl.mean_stderr(errors)
    assert prior.variance(sigma) <= mean + 4 * stderr


def test_gaussian_samples_have_its_mean_and_covariance():
    prior, n = beds.g16().prior, 20_000
    x = jax.jit(jax.vmap(prior.sample))(jax.random.split(jax.random.key(6), n))
    x = (x - prior.mean).reshape(n, -1)
    covariance = prior.covariance
    spread = jnp.diag(covariance)
    assert jnp.all(jnp.abs(x.mean(0)) <= 4.5 * jnp.sqrt(spread / n))
    stderr = jnp.sqrt((covariance**2 + jnp.outer(spread, spread)) / n)
    assert jnp.all(jnp.abs(x.T @ x / n - covariance) <= 4.5 * stderr)


def test_mixture_samples_visit_components_by_weight():
    means = [jnp.full((1, 1, 1), 10.0 * k) for k in range(3)]
    each = [Gaussian(m, jnp.eye(1), jnp.ones(1)) for m in means]
    prior, n = Mixture.of([5.0, 3.0, 2.0], each), 10_000
    x = jax.jit(jax.vmap(prior.sample))(jax.random.split(jax.random.key(7), n)).ravel()
    found = jnp.bincount(jnp.round(x / 10).astype(int), length=3) / n
    weights = jnp.array([0.5, 0.3, 0.2])
    assert jnp.all(jnp.abs(found - weights) <= 4 * jnp.sqrt(weights / n))


def test_posterior_equals_the_dense_formulas():
    bed = beds.g16()
    mean, covariance = numpy_posterior(bed)
    np.testing.assert_allclose(bed.posterior.mean.ravel(), mean, atol=1e-10)
    np.testing.assert_allclose(bed.posterior.covariance, covariance, atol=1e-10)


def test_mixture_of_one_is_its_component():
    bed = beds.g16()
    one = Mixture.of([2.0], [bed.prior])
    x = bed.prior.sample(jax.random.key(8))
    posterior = one.posterior(bed.matrix, bed.y, bed.noise_std)
    np.testing.assert_allclose(one(x, 0.5), bed.prior(x, 0.5), atol=1e-12)
    np.testing.assert_allclose(posterior(x, 0.5), bed.posterior(x, 0.5), atol=1e-10)
    found = mixture_posterior_kl(one, bed.matrix, bed.y, bed.noise_std)
    np.testing.assert_allclose(found, gaussian_kl(bed.posterior, bed.prior), 1e-9)


def test_mixture_posterior_is_bayes():
    # p(x|y) p(y) = p(x) p(y|x) at any x.
    bed = beds.m16()
    x = bed.prior.sample(jax.random.key(9))
    misfit = bed.y - bed.matrix @ x.ravel()
    variance = bed.noise_std**2
    likelihood = -0.5 * jnp.sum(misfit**2 / variance + jnp.log(2 * jnp.pi * variance))
    evidence = bed.prior.log_evidence(bed.matrix, bed.y, bed.noise_std)
    joint = bed.prior.log_prob(x) + likelihood
    np.testing.assert_allclose(bed.posterior.log_prob(x) + evidence, joint, 1e-9)


def test_closed_forms_are_those_of_the_theory():
    g, m = beds.g16(), beds.m16()
    found = gaussian_kl(g.posterior, g.prior)
    np.testing.assert_allclose(found, beds.G16, atol=1e-6)
    found = mixture_posterior_kl(m.prior, m.matrix, m.y, m.noise_std)
    np.testing.assert_allclose(found, beds.M16, atol=1e-6)
    found = m.prior.log_evidence(m.matrix, m.y, m.noise_std)
    np.testing.assert_allclose(found, -6.155218, atol=1e-6)


def test_mixture_kl_is_the_mean_log_ratio():
    bed = beds.m16()
    posterior = bed.posterior

    def log_ratio(key):
        x = posterior.sample(key)
        return posterior.log_prob(x) - bed.prior.log_prob(x)

    keys = jax.random.split(jax.random.key(10), 4096)
    mean, stderr = kl.mean_stderr(jax.jit(jax.vmap(log_ratio))(keys))
    assert abs(mean - beds.M16) <= 4 * stderr


def test_gaussian_kl_is_zero_only_for_equal_laws():
    p = beds.g16().prior
    np.testing.assert_allclose(gaussian_kl(p, p), 0, atol=1e-9)
    np.testing.assert_allclose(gaussian_kl(p.replace(mean=p.mean + 0.1), p) > 0, True)


def test_kl_between_two_levels_is_the_integral_of_the_integrand():
    bed = beds.g16()
    post, prior, levels = bed.posterior, bed.prior, sde.log_levels(64, 0.05, 5.0)
    at = jax.jit(jax.vmap(lambda s: sum(beds.integrand(bed, bed.exact(), s)).sum()))(
        levels
    )
    noised = [gaussian_kl(post.noised(s), prior.noised(s)) for s in (0.05, 5.0)]
    np.testing.assert_allclose(kl.trapezoid(levels) @ at, noised[0] - noised[1], 1e-3)


def test_priors_are_pytrees_that_follow_the_dtype(bed):
    prior = jax.tree.map(lambda a: a.astype(jnp.float32), bed.prior)
    x = jnp.ones(bed.shape, jnp.float32)
    denoised = jax.jit(lambda p, x, s: p(x, s))(prior, x, jnp.float32(0.3))
    assert denoised.dtype == jnp.float32
    np.testing.assert_allclose(denoised, bed.prior(x, 0.3), atol=2e-5)
