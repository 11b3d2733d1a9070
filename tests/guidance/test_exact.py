import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.guidance.guided import Guided
from klip_jax.guidance.none import NoGuidance

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("sigma", [0.02, 0.5, 10.0])
def test_score_is_the_dense_formula(sigma):
    # J^T A^T (A C A^T + s^2)^-1 (y - A D), C = sigma^2 J.
    bed = beds.g16()
    u = bed.posterior.sample(jax.random.key(0)) + sigma
    x0, score = bed.exact().score(bed.prior, bed.scan, u, sigma)
    covariance, a = np.asarray(bed.prior.covariance), np.asarray(bed.matrix)
    jacobian = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(16))
    gram = sigma**2 * a @ jacobian @ a.T + bed.noise_std**2 * np.eye(8)
    residual = np.asarray(bed.y) - a @ np.asarray(x0).ravel()
    expected = jacobian.T @ a.T @ np.linalg.solve(gram, residual)
    np.testing.assert_allclose(score.ravel(), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
def test_score_of_a_mixture_is_the_gradient_of_the_evidence(sigma):
    # log p(y|u) is the evidence of y under the mixture p(x0 | u).
    bed = beds.m16()
    u = bed.posterior.sample(jax.random.key(1)) + sigma

    def log_evidence(u):
        def component(c):
            shrink = c.spectrum * sigma**2 / (c.spectrum + sigma**2)
            local = c.replace(mean=c(u, sigma), spectrum=shrink)
            s = bed.matrix @ local.covariance @ bed.matrix.T
            s += bed.noise_std**2 * jnp.eye(8)
            r = bed.y - bed.matrix @ local.mean.ravel()
            misfit = r @ jnp.linalg.solve(s, r) + jnp.linalg.slogdet(2 * jnp.pi * s)[1]
            return c.log_prob(u, sigma), -misfit / 2

        prior, data = jax.vmap(component)(bed.prior.components)
        prior += bed.prior.log_weights
        return jax.nn.logsumexp(prior + data) - jax.nn.logsumexp(prior)

    _, score = bed.exact().score(bed.prior, bed.scan, u, sigma)
    expected = jax.jit(jax.grad(log_evidence))(u)
    np.testing.assert_allclose(score, expected, atol=1e-8)


def test_nothing_measured_is_no_score():
    bed = beds.g16()
    u = bed.prior.sample(jax.random.key(2))
    x0, score = NoGuidance().score(bed.prior, None, u, 0.3)
    np.testing.assert_array_equal(x0, bed.prior(u, 0.3))
    assert not score.any()


def test_guidance_and_scan_are_arguments_of_jit():
    bed = beds.g16()
    u = bed.prior.sample(jax.random.key(3))
    run = jax.jit(lambda guidance, prior, scan: guidance.score(prior, scan, u, 0.3))
    other = bed._replace(y=bed.y + 1)
    for b in (bed, other):
        for found, expected in zip(
            run(b.exact(), b.prior, b.scan),
            b.exact().score(b.prior, b.scan, u, 0.3),
            strict=True,
        ):
            np.testing.assert_allclose(found, expected, atol=1e-10)
    assert run._cache_size() == 1


def test_guided_by_the_exact_score_is_the_posterior():
    bed = beds.g16()
    u = bed.prior.sample(jax.random.key(4))
    guided = Guided(bed.prior, bed.exact(), bed.scan)
    np.testing.assert_allclose(guided(u, 0.3), bed.posterior(u, 0.3), 1e-12)
    np.testing.assert_array_equal(guided.variance(0.3), bed.prior.variance(0.3))


def test_guided_twice_is_guided_by_both():
    # Two independent scans of one image: scores add up, in either order.
    bed = beds.white()
    other = bed._replace(matrix=bed.matrix[:2] + 1, y=bed.y[:2])
    u = bed.prior.sample(jax.random.key(5))
    both = [
        Guided(Guided(bed.prior, one.exact(), one.scan), NoGuidance(), None)(u, 0.3)
        - bed.prior(u, 0.3)
        for one in (bed, other)
    ]
    first = bed.exact().score(bed.prior, bed.scan, u, 0.3)[1]
    second = other.exact().score(bed.prior, other.scan, u, 0.3)[1]
    np.testing.assert_allclose(sum(both), 0.3**2 * (first + second), atol=1e-12)


def test_a_guided_denoiser_is_a_pytree_of_its_parts():
    # One compilation for all settings; a batch of images is a loop over them.
    bed = beds.white()
    us = jax.vmap(bed.prior.sample)(jax.random.split(jax.random.key(6), 3))
    run = jax.jit(jax.vmap(lambda guided, u: guided(u, 0.3), (None, 0)))
    for inflation in (1.0, 2.0):
        guided = Guided(bed.prior, ConditionalGaussian(inflation), bed.scan)
        expected = [guided(u, 0.3) for u in us]
        np.testing.assert_allclose(run(guided, us), expected, 1e-12)
    assert run._cache_size() == 1
