import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import kl, sde
from klip_jax.guidance.pigdm import PiGDM
from klip_jax.guidance.trace_covariance import TraceCovariance
from klip_jax.priors.function import prior
from klip_jax.scan import data_score

pytestmark = pytest.mark.usefixtures("x64")

# Section 2.3 of the theory, "trace C/d" at these nodes.
NODES = np.geomspace(0.01, 50, 12)
TRACE = [0.0699, 1.067, 2.402, 4.390, 6.717, 7.594, 4.969, 0.255]
AT = [0, 2, 3, 4, 5, 6, 7, 9]


def test_integrand_of_the_theory():
    bed = beds.g16()
    exact_trace = TraceCovariance(probes=0)

    @jax.jit
    def total(sigma):
        return sum(beds.integrand(bed, exact_trace, sigma)).sum()

    found = [total(sigma) for sigma in NODES[AT]]
    np.testing.assert_allclose(found, TRACE, rtol=2e-3)
    levels = sde.log_levels(64, 0.002, 80.0)
    nats = kl.trapezoid(levels) @ jax.lax.map(total, levels)
    np.testing.assert_allclose(nats / beds.G16, 2.005, rtol=5e-4)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 6.0])
def test_equals_pigdm_on_a_gaussian_and_the_truth_on_a_white_one(sigma):
    bed = beds.g16()
    u = bed.prior.sample(jax.random.key(0))
    found = TraceCovariance(probes=0).score(bed.prior, bed.scan, u, sigma)
    expected = PiGDM().score(bed.prior, bed.scan, u, sigma)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)
    # tr J = d v / sigma^2 for any signs, if J is a multiple of the identity.
    bed = beds.white()
    u = bed.prior.sample(jax.random.key(1))
    found = TraceCovariance(probes=1).score(bed.prior, bed.scan, u, sigma)
    np.testing.assert_allclose(
        found[1], bed.exact().score(bed.prior, bed.scan, u, sigma)[1]
    )


def test_variance_of_a_mixture_is_that_of_this_image():
    # tr Cov(x0 | u) = sum rho tr C_k + sum rho |D_k - D|^2, unlike `prior.variance`.
    bed, sigma = beds.m16(), 0.7
    u = jnp.linspace(-1.5, 1.5, 16).reshape(bed.shape)
    guidance = TraceCovariance(probes=0)

    @jax.jit
    def both(prior):
        logits = jax.vmap(lambda c: c.log_prob(u, sigma))(prior.components)
        rho = jax.nn.softmax(prior.log_weights + logits)
        within = 16 * jax.vmap(lambda c: c.variance(sigma))(prior.components)
        means = jax.vmap(lambda c: c(u, sigma))(prior.components)
        between = jnp.sum((means - prior(u, sigma)) ** 2, (1, 2, 3))
        variance = rho @ (within + between) / 16
        x0, pullback = jax.vjp(lambda u: prior(u, sigma), u)
        gradient = data_score(bed.scan, x0, variance)
        return guidance.score(prior, bed.scan, u, sigma)[1], pullback(gradient)[0]

    np.testing.assert_allclose(*both(bed.prior), 1e-8)


def test_probes_are_the_signs_of_the_seed():
    # z^T J z for random signs z, in the mean over 4 of them.
    bed, sigma = beds.g16(), 0.4
    u = bed.prior.sample(jax.random.key(3))
    j = (bed.prior.basis * (bed.prior.spectrum / (bed.prior.spectrum + sigma**2))) @ (
        bed.prior.basis.T
    )
    z = jax.random.rademacher(jax.random.key(5), (4, 16), jnp.float64)
    variance = sigma**2 * jnp.einsum("pi,ij,pj->", z, j, z) / 4 / 16
    guidance = TraceCovariance(probes=4, seed=5)
    x0, found = guidance.score(bed.prior, bed.scan, u, sigma)
    gradient = data_score(bed.scan, x0, variance)
    np.testing.assert_allclose(found.ravel(), j @ gradient.ravel(), 1e-8)


def test_a_network_that_is_no_denoiser_gives_no_negative_variance():
    bed = beds.white()
    u, bad = bed.prior.sample(jax.random.key(4)), prior(lambda x, sigma: -x)
    found = TraceCovariance().score(bad, bed.scan, u, 0.3)
    # v = 0: the score of DPS, through J = -I.
    data = bed.matrix.T @ (bed.y + bed.matrix @ u.ravel()) / bed.noise_std**2
    np.testing.assert_allclose(found[1].ravel(), -data)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="probes=-1"):
        TraceCovariance(probes=-1)
