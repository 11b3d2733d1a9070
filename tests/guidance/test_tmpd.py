import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.guidance.tmpd import TMPD
from klip_jax.priors.analytic import Gaussian
from klip_jax.scan import residual

pytestmark = pytest.mark.usefixtures("x64")
SIGMA = 0.6


def jacobian(prior, sigma):
    return (prior.basis * (prior.spectrum / (prior.spectrum + sigma**2))) @ (
        prior.basis.T
    )


def test_it_is_the_dense_formula():
    bed = beds.random(6, 0)
    u = bed.prior.sample(jax.random.key(0)) + 1
    x0, found = TMPD().score(bed.prior, bed.scan, u, SIGMA)
    a, j = np.asarray(bed.matrix), np.asarray(jacobian(bed.prior, SIGMA))
    sums = np.maximum((SIGMA**2 * a @ j @ a.T).sum(1), 0)
    r = np.asarray(residual(bed.scan, x0))
    expected = j.T @ a.T @ (r / (bed.noise_std**2 + sums))
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-9)


@pytest.mark.parametrize("noise_std", [0.1, np.linspace(0.1, 0.4, 4)])
def test_it_is_exact_where_pixels_of_a_white_prior_are_seen(noise_std):
    rows = np.eye(8)[::2]
    bed = beds.white()._replace(matrix=jnp.asarray(rows), y=jnp.arange(4.0))
    u = bed.prior.sample(jax.random.key(1))
    scan = bed.scan._replace(noise_std=jnp.asarray(noise_std))
    _, found = TMPD().score(bed.prior, scan, u, SIGMA)
    shrink = 0.5 / (0.5 + SIGMA**2)
    r = residual(scan, bed.prior(u, SIGMA))
    expected = shrink * rows.T @ (r / (noise_std**2 + SIGMA**2 * shrink))
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-9)


def test_it_is_exact_along_equal_residuals_of_exchangeable_pixels():
    # All rows of C have one sum, so that 1 is an eigenvector of C + s^2.
    d = 5
    prior = Gaussian.from_covariance(
        jnp.zeros((d, 1, 1)), 0.3 * jnp.eye(d) + 0.2 * jnp.ones((d, d))
    )
    bed = beds.Bed(prior, jnp.eye(d), jnp.full(d, 2.0), 0.1)
    u = jnp.full((d, 1, 1), 0.7)
    _, found = TMPD().score(prior, bed.scan, u, SIGMA)
    np.testing.assert_allclose(
        found, bed.exact().score(prior, bed.scan, u, SIGMA)[1], rtol=1e-9
    )


def test_it_is_no_larger_than_the_truth_where_no_entry_is_negative():
    # diag(C 1) - C is a graph Laplacian: the data's energy r^T (.)^-1 r is smaller.
    bed = beds.g16()
    a, j = np.asarray(bed.matrix), np.asarray(jacobian(bed.prior, SIGMA))
    gram = SIGMA**2 * a @ np.abs(j) @ a.T
    least = np.linalg.eigvalsh(np.diag(gram.sum(1)) - gram).min()
    assert least > -1e-12
