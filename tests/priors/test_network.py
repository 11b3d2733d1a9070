"""Wrapped networks that compute a Gaussian's exact output, against the Gaussian."""

import beds
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.priors.analytic import Gaussian
from klip_jax.priors.base import NetworkPrior, timestep_sigmas
from klip_jax.priors.edm import EDM
from klip_jax.priors.epsilon import Epsilon
from klip_jax.priors.velocity import Velocity

BETAS = tuple(np.linspace(1e-4, 0.02, 1000))
SIGMA_DATA = 0.7


class ExactNet(nn.Module):
    """The exact denoiser of a Gaussian over [-1, 1], its arrays as parameters."""

    def exact(self, x, sigma):
        d = x.size
        mean = self.param("mean", nn.initializers.zeros, x.shape)
        basis = self.param("basis", nn.initializers.zeros, (d, d))
        spectrum = self.param("spectrum", nn.initializers.zeros, (d,))
        return Gaussian(mean, basis, spectrum)(x, sigma)

    def from_timestep(self, x_t, t):
        sigmas = timestep_sigmas(BETAS)
        sigma = jnp.exp(jnp.interp(t, np.arange(len(sigmas)), np.log(sigmas)))
        x = x_t * jnp.sqrt(1 + sigma**2)
        return sigma, x, self.exact(x, sigma)


class EpsilonNet(ExactNet):
    @nn.compact
    def __call__(self, x_t, t):
        sigma, x, x0 = self.from_timestep(x_t, t)
        return (x - x0) / sigma


class VelocityNet(ExactNet):
    @nn.compact
    def __call__(self, x_t, t):
        sigma, x, x0 = self.from_timestep(x_t, t)
        alpha = 1 / jnp.sqrt(1 + sigma**2)
        return alpha * (x - x0) / sigma - alpha * sigma * x0


class EDMNet(ExactNet):
    @nn.compact
    def __call__(self, x_in, c_noise):
        sigma = jnp.exp(4 * c_noise)
        total = jnp.sqrt(sigma**2 + SIGMA_DATA**2)
        x = total * x_in
        skip = (SIGMA_DATA / total) ** 2 * x
        return (self.exact(x, sigma) - skip) * total / (sigma * SIGMA_DATA)


WRAPPED = {
    "Epsilon": lambda params: Epsilon(params, EpsilonNet(), betas=BETAS),
    "Velocity": lambda params: Velocity(params, VelocityNet(), betas=BETAS),
    "EDM": lambda params: EDM(params, EDMNet(), sigma_data=SIGMA_DATA),
}


@pytest.fixture(params=WRAPPED)
def wrap(request):
    return WRAPPED[request.param]


def prior01():
    """A Gaussian over images in [0, 1]."""
    prior = beds.g16().prior
    return prior.replace(mean=prior.mean / 4 + 0.5, spectrum=prior.spectrum / 25)


def params11(prior):
    """The same Gaussian after 2 x - 1."""
    return dict(
        params=dict(
            mean=2 * prior.mean - 1, basis=prior.basis, spectrum=4 * prior.spectrum
        )
    )


SIGMAS = [0.01, 0.1, 1.0, 20.0]


@pytest.mark.parametrize("sigma", SIGMAS)
def test_wrapped_network_is_the_gaussian(wrap, sigma, x64):
    exact = prior01()
    x = exact.sample(jax.random.key(0)) + sigma
    found = wrap(params11(exact))(x, jnp.float64(sigma))
    # The EDM network undoes c_skip x: at sigma = 20 it loses two digits.
    np.testing.assert_allclose(found, exact(x, sigma), atol=1e-9 * (1 + sigma))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_wrapped_network_is_the_gaussian_in_float32(wrap, sigma):
    exact = prior01()
    x = exact.sample(jax.random.key(0)) + sigma
    found = jax.jit(lambda p, x, s: p(x, s))(wrap(params11(exact)), x, sigma)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact(x, sigma), atol=1e-5 * (1 + sigma))


def test_limits(wrap, x64):
    exact = prior01()
    prior, x = wrap(params11(exact)), exact.sample(jax.random.key(1))
    np.testing.assert_allclose(prior(x, jnp.float64(0.006)), x, atol=0.1)
    # 78 is half the highest noise level of this schedule in [-1, 1].
    np.testing.assert_allclose(prior(x, jnp.float64(78.0)), exact.mean, atol=1e-3)


def test_wrapped_network_is_a_pytree(wrap):
    prior = wrap(params11(prior01()))
    leaves, structure = jax.tree.flatten(prior)
    rebuilt = jax.tree.unflatten(structure, leaves)
    x = jnp.full((16, 1, 1), 0.3)
    np.testing.assert_array_equal(rebuilt(x, 0.2), prior(x, 0.2))
    assert jax.tree.structure(rebuilt) == structure
    assert hash(structure) == hash(jax.tree.structure(rebuilt))


def test_variance_without_a_table_is_that_of_a_white_prior():
    prior = WRAPPED["EDM"]({})
    np.testing.assert_allclose(prior.variance(0.5), 0.125, 1e-6)


def test_variance_interpolates_its_table():
    prior = EDM({}, EDMNet(), levels=[0.1, 1.0, 10.0], errors=[0.008, 0.04, 0.05])
    for sigma, expected in [(0.1, 0.008), (10.0, 0.05), (100.0, 0.05)]:
        np.testing.assert_allclose(prior.variance(sigma), expected, 1e-5)
    middle = prior.variance(np.sqrt(0.1))
    np.testing.assert_allclose(middle, np.sqrt(0.008 * 0.04), 1e-5)
    # Below the table the error falls like sigma^2.
    np.testing.assert_allclose(prior.variance(0.01), 0.008 / 100, 1e-5)


def test_timestep_levels_are_those_of_ddpm():
    # beta_t / abar_t = sigma_t^2 - sigma_{t-1}^2, exactly.
    betas, sigmas = np.asarray(BETAS), timestep_sigmas(BETAS)
    abar = np.cumprod(1 - betas)
    np.testing.assert_allclose(sigmas, np.sqrt((1 - abar) / abar), 1e-9)
    np.testing.assert_allclose(np.diff(sigmas**2, prepend=0), betas / abar, 1e-8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: EDM({}, EDMNet(), sigma_data=0.0), "sigma_data"),
        (lambda: EDM({}, EDMNet(), levels=[1.0], errors=[]), "error table"),
        (lambda: Epsilon({}, EpsilonNet(), betas=[0.1, 1.0]), "betas"),
        (lambda: Velocity({}, VelocityNet(), betas=[]), "betas"),
    ],
)
def test_wrong_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_prior_must_define_denoise():
    with pytest.raises(NotImplementedError, match="denoise"):
        NetworkPrior({}, EDMNet())(jnp.zeros((2, 2, 1)), 1.0)
