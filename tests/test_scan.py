"""What was measured: simulation, whitening, conditional Gaussians."""

import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import scan
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.guidance.dps import DPS, DPSWithoutJacobian
from klip_jax.guidance.pigdm import PiGDM
from klip_jax.guidance.trace_covariance import TraceCovariance
from klip_jax.operators.base import Operator
from klip_jax.operators.counts import Diagonal
from klip_jax.operators.ct import ParallelBeam
from klip_jax.priors.analytic import Gaussian
from klip_jax.samplers.null_space import NullSpace
from klip_jax.samplers.projection import Projection
from klip_jax.samplers.proximal import Proximal
from klip_jax.types import Scan

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


class Complex(Operator):
    """y = (P + iQ) x."""

    out_dtype = jnp.complex128

    def __init__(self, matrix, in_shape):
        super().__init__()
        self.matrix = matrix
        self.in_shape, self.out_shape = in_shape, (len(matrix),)

    def __call__(self, x):
        return self.matrix @ x.ravel()


def complex_pair():
    """Return a complex operator, and the real one of its real and imaginary parts."""
    key_p, key_q = jax.random.split(KEY)
    p, q = jax.random.normal(key_p, (3, 8)), jax.random.normal(key_q, (3, 8))
    shape = (8, 1, 1)
    return Complex(p + 1j * q, shape), beds.Dense(jnp.concatenate([p, q]), shape)


def uneven():
    """Return a bed, a scan of it with a noise_std of its own for each measurement."""
    bed = beds.white()
    return bed, bed.scan._replace(noise_std=jnp.geomspace(0.05, 0.8, 5))


def test_simulated_noise_is_that_of_the_key():
    operator = ParallelBeam((8, 8, 1), views=3)
    x = jax.random.normal(KEY, (8, 8, 1), jnp.float32)
    found = scan.simulate(KEY, operator, x, 0.3)
    noise = jax.random.normal(KEY, operator.out_shape, jnp.float32)
    np.testing.assert_array_equal(found.y, operator(x) + 0.3 * noise)
    assert found.operator is operator and found.noise_std == 0.3


def test_each_measurement_has_its_own_noise():
    bed, own = uneven()
    x = bed.prior.mean
    keys = jax.random.split(KEY, 4000)
    simulate = jax.jit(jax.vmap(lambda k: scan.simulate(k, *own[:1], x, own[2]).y))
    spread = simulate(keys).std(0) / own.noise_std
    np.testing.assert_allclose(spread, 1, atol=4.5 / np.sqrt(2 * 4000))


def test_complex_noise_is_per_real_component():
    operator, _ = complex_pair()
    x = jnp.zeros(operator.in_shape)
    keys = jax.random.split(KEY, 4000)
    n = jax.jit(jax.vmap(lambda k: scan.simulate(k, operator, x, 0.3).y))(keys)
    both = jnp.concatenate([n.real, n.imag], -1)
    covariance = jnp.cov(both.T) / 0.3**2
    np.testing.assert_allclose(covariance, np.eye(6), atol=4.5 * np.sqrt(2 / 4000))


def test_complex_measurements_are_their_real_and_imaginary_parts():
    operator, parts = complex_pair()
    x0 = jax.random.normal(jax.random.key(1), operator.in_shape)
    own = scan.simulate(KEY, operator, x0 + 1, 0.3)
    y = jnp.concatenate([own.y.real, own.y.imag])
    found = scan.conditional_shift(own, x0, 0.7)
    expected = scan.conditional_shift(Scan(parts, y, 0.3), x0, 0.7)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    law = Gaussian(x0, jnp.eye(8), jnp.full(8, 0.7)).posterior(parts.matrix, y, 0.3)
    np.testing.assert_allclose(x0 + expected, law.mean, atol=1e-9)


@pytest.mark.parametrize("variance", [0.0, 0.05, 30.0])
def test_conditional_shift_with_uneven_noise_is_the_dense_formula(variance):
    bed, own = uneven()
    a, x0 = np.asarray(bed.matrix), bed.prior.mean + 0.3
    gram = variance * a @ a.T + np.diag(np.asarray(own.noise_std) ** 2)
    r = np.asarray(bed.y) - a @ np.asarray(x0).ravel()
    gradient = a.T @ np.linalg.solve(gram, r)
    found = scan.data_score(own, x0, variance).ravel()
    np.testing.assert_allclose(found, gradient, atol=1e-4 * np.abs(gradient).max())
    shift = scan.conditional_shift(own, x0, variance).ravel()
    np.testing.assert_allclose(shift, variance * found, 1e-12)


def test_equal_noise_of_each_is_one_noise():
    bed = beds.white()
    each = bed.scan._replace(noise_std=jnp.full(5, bed.noise_std))
    x0 = bed.prior.mean + 0.3
    expected = scan.conditional_shift(bed.scan, x0, 0.4)
    np.testing.assert_allclose(
        scan.conditional_shift(each, x0, 0.4), expected, atol=1e-5
    )


GUIDANCE = [
    ConditionalGaussian(2.0),
    PiGDM(),
    PiGDM(0.4),
    TraceCovariance(),
    DPS(),
    DPSWithoutJacobian(),
]


@pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: type(g).__name__)
def test_guidance_with_uneven_noise_is_that_of_a_whitened_scan(guidance):
    bed, own = uneven()
    white = Diagonal(own.y.shape, 1 / own.noise_std) @ own.operator
    whitened = Scan(white, own.y / own.noise_std, 1.0)
    u = bed.prior.sample(KEY)
    (_, found), (_, expected) = (
        guidance.score(bed.prior, s, u, 0.3) for s in (own, whitened)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4 * jnp.abs(expected).max())


@pytest.mark.parametrize(
    "sampler", [NullSpace(), Projection(), Proximal()], ids=lambda s: type(s).__name__
)
def test_samplers_with_uneven_noise_are_those_of_a_whitened_scan(sampler):
    bed, own = uneven()
    white = Diagonal(own.y.shape, 1 / own.noise_std) @ own.operator
    whitened = Scan(white, own.y / own.noise_std, 1.0)
    u = bed.prior.sample(KEY)
    (found, _), (expected, _) = (
        sampler.step(KEY, u, bed.prior, ConditionalGaussian(), s, 0.6, 0.4)
        for s in (own, whitened)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_scan_is_a_pytree_and_vmaps():
    bed = beds.white()
    x0 = bed.prior.mean

    def shift(key):
        own = scan.simulate(key, bed.scan.operator, x0, bed.noise_std)
        return scan.conditional_shift(own, x0, 0.4)

    keys = jax.random.split(KEY, 3)
    scans = jax.vmap(lambda k: scan.simulate(k, bed.scan.operator, x0, 0.2))(keys)
    assert isinstance(scans, Scan) and scans.y.shape == (3, 5)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(shift))(keys), [shift(k) for k in keys], atol=1e-12
    )
