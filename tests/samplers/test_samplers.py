"""The samplers whose step is an affine map plus noise, by exact propagation."""

import itertools

import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import sde
from klip_jax.guidance.none import NoGuidance
from klip_jax.guidance.pigdm import PiGDM
from klip_jax.kl import path_kl
from klip_jax.priors.analytic import gaussian_kl
from klip_jax.sample import sample
from klip_jax.samplers.ancestral import Ancestral
from klip_jax.samplers.ddim import DDIM
from klip_jax.samplers.euler_maruyama import EulerMaruyama
from klip_jax.samplers.heun import Heun

pytestmark = pytest.mark.usefixtures("x64")
SAMPLERS = {
    "ancestral": Ancestral(),
    "Euler-Maruyama": EulerMaruyama(),
    "DDIM": DDIM(),
    "DDIM(.5)": DDIM(0.5),
    "Heun": Heun(),
}
ORDERS = dict.fromkeys(SAMPLERS, 1) | {"Heun": 2}


@pytest.fixture(params=SAMPLERS)
def sampler(request):
    return SAMPLERS[request.param]


def levels(n):
    return sde.log_levels(n + 1, 0.002, 200.0)[::-1]


def distance(law, target):
    """Distance of the covariances, squared image units."""
    return jnp.linalg.norm(law.covariance - target.covariance)


@pytest.fixture(scope="module")
def propagate():
    """Propagate through any levels: chains of all lengths share a program."""
    compiled = jax.jit(beds.propagate)

    def of(sampler, bed, guidance, sigmas):
        padded = jnp.pad(sigmas, (0, 801 - len(sigmas)), mode="edge")
        return compiled(sampler, bed, guidance, padded, len(sigmas) - 1)

    return of


@pytest.mark.parametrize("measured", [True, False], ids=["posterior", "prior"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_output_converges_at_its_order(name, measured, propagate):
    bed, sampler = beds.g16(), SAMPLERS[name]
    guidance = bed.exact() if measured else NoGuidance()
    target = (bed.posterior if measured else bed.prior).noised(0.002)
    laws = [propagate(sampler, bed, guidance, levels(n))[0] for n in (100, 200, 400)]
    # Halving the step divides the error, and so what it changes, by 2^order.
    factor = 2 ** ORDERS[name]
    coarse, fine = (distance(*pair) for pair in itertools.pairwise(laws))
    assert 0.9 <= coarse / fine / factor <= 1.1
    assert distance(laws[-1], target) <= 1.1 * fine / (factor - 1)
    # The mean is a fixed point of every step. What is left is that the chain starts at
    # 0, shrunk at least as much as by the probability flow, sqrt(lambda) / sigma_max.
    error = jnp.linalg.norm((laws[-1].mean - target.mean).ravel())
    start = jnp.linalg.norm(target.mean.ravel())
    assert error <= 1.1 * start * jnp.sqrt(target.spectrum.max()) / 200


@pytest.mark.parametrize("name", ["ancestral", "Euler-Maruyama"])
def test_path_kl_converges_to_the_kl_at_first_order(name, propagate):
    bed = beds.g16()
    gaps = [
        propagate(SAMPLERS[name], bed, bed.exact(), levels(n))[1].sum() - beds.G16
        for n in (200, 400)
    ]
    assert 0 < gaps[1] < gaps[0]
    assert 1.8 <= gaps[0] / gaps[1] <= 2.2


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_path_kl_of_less_noise_is_a_multiple_of_the_kl(eta, propagate):
    # The chain of DDIM(eta) tends to an SDE of noise eta^2 and drift (1 + eta^2) / 2.
    bed = beds.g16()
    coarse, fine = (
        propagate(DDIM(eta), bed, bed.exact(), levels(n))[1].sum() for n in (400, 800)
    )
    expected = (1 + eta**2) ** 2 / (4 * eta**2) * beds.G16
    # Richardson's rule removes the first order.
    np.testing.assert_allclose(2 * fine - coarse, expected, 2e-3)


# T7: 80 -> .002, n levels, exact expectation of the sum of |shift|^2 / (2 noise_var).
@pytest.mark.parametrize(
    ("name", "n", "expected"),
    [
        ("ancestral", 100, 12.214),
        ("ancestral", 200, 11.728),
        ("Euler-Maruyama", 100, 12.001),
        ("Euler-Maruyama", 200, 11.622),
    ],
)
def test_path_kl_of_the_theory(name, n, expected, propagate):
    bed, sigmas = beds.g16(), sde.log_levels(n, 0.002, 80.0)[::-1]
    _, nats = propagate(SAMPLERS[name], bed, bed.exact(), sigmas)
    np.testing.assert_allclose(nats.sum(), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("guided", "path", "output"),
    [
        (lambda bed: bed.exact(), 11.73, 11.33),
        (lambda bed: PiGDM(prior_var=1.0), 11.90, 9.98),
    ],
)
def test_path_kl_bounds_the_kl_of_the_outputs(guided, path, output, propagate):
    # T14, n = 200.
    bed, sigmas = beds.g16(), sde.log_levels(200, 0.002, 80.0)[::-1]
    law, nats = propagate(Ancestral(), bed, guided(bed), sigmas)
    free, _ = propagate(Ancestral(), bed, NoGuidance(), sigmas)
    bounded = gaussian_kl(law, free)
    assert nats.sum() >= bounded
    np.testing.assert_allclose([nats.sum(), bounded], [path, output], atol=0.006)


@jax.jit
def run(sampler, bed, sigmas, keys):
    given = dict(guidance=bed.exact(), scan=bed.scan, reducer=path_kl())

    def one(key):
        return sample(key, sampler, bed.prior, sigmas, bed.shape, **given)

    return jax.vmap(one)(keys)


def test_chains_have_the_propagated_law(sampler, propagate):
    # What `propagate` computes is what `sample` draws.
    bed, n, sigmas = beds.g16(), 4096, levels(20)
    law, nats = propagate(sampler, bed, bed.exact(), sigmas)
    chains = run(sampler, bed, sigmas, jax.random.split(jax.random.key(0), n))
    centred = chains.x.reshape(n, -1) - law.mean.ravel()
    covariance, spread = law.covariance, jnp.diag(law.covariance)
    assert jnp.all(jnp.abs(centred.mean(0)) <= 4.5 * jnp.sqrt(spread / n))
    stderr = jnp.sqrt((covariance**2 + jnp.outer(spread, spread)) / n)
    assert jnp.all(jnp.abs(centred.T @ centred / n - covariance) <= 4.5 * stderr)
    energy = chains.reduced.sum((1, 2))
    assert abs(energy.mean() - nats.sum()) <= 4 * energy.std() / np.sqrt(n)


def test_ddim_of_unit_noise_is_ancestral_sampling():
    bed, key = beds.g16(), jax.random.key(1)
    x = 3 * jax.random.normal(key, bed.shape)
    for sigma, sigma_next in ((50.0, 3.0), (0.5, 0.45), (0.01, 0.0)):
        steps = [
            s.step(key, x, bed.prior, bed.exact(), bed.scan, sigma, sigma_next)
            for s in (DDIM(1.0), Ancestral())
        ]
        for a, b in zip(*(jax.tree.leaves(s) for s in steps), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_ancestral_path_kl_is_a_sum_in_the_signal_to_noise_ratio():
    # |shift|^2 / (2 noise_var) = 1/2 (1/s'^2 - 1/s^2) |D_y - D|^2.
    bed, s, s2 = beds.g16(), 0.8, 0.7
    x = bed.prior.sample(jax.random.key(2))
    _, info = Ancestral().step(
        jax.random.key(3),
        x,
        bed.prior,
        bed.exact(),
        bed.scan,
        jnp.float64(s),
        jnp.float64(s2),
    )
    difference = bed.posterior(x, s) - bed.prior(x, s)
    expected = 0.5 * (1 / s2**2 - 1 / s**2) * jnp.sum(difference**2, -1)
    found = path_kl().update(path_kl().init(bed.shape), info)
    np.testing.assert_allclose(found, expected, 1e-9)


def test_a_step_without_noise_has_no_path_kl(propagate):
    bed, to_zero = beds.g16(), jnp.append(levels(10), 0.0)
    _, nats = propagate(DDIM(), bed, bed.exact(), to_zero)
    assert not nats.any()
    _, whole = propagate(Ancestral(), bed, bed.exact(), to_zero)
    _, counted = propagate(Ancestral(), bed, bed.exact(), to_zero[:-1])
    np.testing.assert_allclose(whole, counted, 1e-12)


def test_last_step_returns_the_posterior_mean(sampler):
    if sampler is SAMPLERS["Euler-Maruyama"]:
        pytest.skip("Euler-Maruyama keeps its noise in the step to 0")
    bed, sigma = beds.g16(), 0.3
    x = bed.prior.sample(jax.random.key(4))
    found, _ = sampler.step(
        jax.random.key(5),
        x,
        bed.prior,
        bed.exact(),
        bed.scan,
        jnp.float64(sigma),
        jnp.float64(0),
    )
    np.testing.assert_allclose(found, bed.posterior(x, sigma), atol=1e-10)


@pytest.mark.parametrize(
    "build", [lambda: Ancestral(-0.1), lambda: DDIM(-1.0), lambda: DDIM(1.5)]
)
def test_wrong_settings_are_refused(build):
    with pytest.raises(ValueError, match="eta"):
        build()
