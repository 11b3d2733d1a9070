import itertools

import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.guidance.mmps import MMPS
from klip_jax.operators.base import Operator
from klip_jax.priors.function import prior
from klip_jax.types import Scan

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("sigma", [0.02, 0.5, 10.0])
def test_it_is_exact_for_any_gaussian_prior(sigma):
    # As many iterations as measurements solve; a few more against rounding.
    bed = beds.g16()
    u = bed.posterior.sample(jax.random.key(0)) + sigma
    found = MMPS(iterations=12).score(bed.prior, bed.scan, u, sigma)
    expected = bed.exact().score(bed.prior, bed.scan, u, sigma)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6, atol=1e-7)


def test_each_iteration_comes_closer():
    bed, sigma = beds.g16(), 0.5
    u = bed.posterior.sample(jax.random.key(1)) + sigma
    expected = bed.exact().score(bed.prior, bed.scan, u, sigma)[1]
    errors = [
        jnp.linalg.norm(
            MMPS(iterations=n).score(bed.prior, bed.scan, u, sigma)[1] - expected
        )
        for n in (1, 3, 5, 8)
    ]
    assert all(b < a / 2 for a, b in itertools.pairwise(errors))


def test_one_noise_a_measurement():
    bed, sigma = beds.random(6, 0), 0.7
    noise_std = jnp.array([0.1, 0.3, 0.6])
    u = bed.prior.sample(jax.random.key(2))
    scan = bed.scan._replace(noise_std=noise_std)
    _, found = MMPS(iterations=6).score(bed.prior, scan, u, sigma)
    rows = bed.matrix / noise_std[:, None]
    white = bed._replace(matrix=rows, y=bed.y / noise_std, noise_std=1.0)
    expected = white.exact().score(bed.prior, white.scan, u, sigma)[1]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


class Fourier(Operator):
    """Half of the frequencies of a line, complex."""

    out_dtype = jnp.complex128

    def __init__(self, in_shape):
        self.in_shape, self.out_shape = in_shape, (in_shape[0] // 2,)

    def __call__(self, x):
        return jnp.fft.fft(x.ravel(), norm="ortho")[: self.out_shape[0]]


def test_complex_measurements():
    # Real and imaginary parts are measurements of their own.
    d, sigma = 8, 0.4
    smooth = beds.random(d, 3).prior
    key = jax.random.key(3)
    operator = Fourier((d, 1, 1))
    y = jax.random.normal(key, operator.out_shape, jnp.complex128)
    u = jax.random.normal(key, (d, 1, 1))
    found = MMPS(iterations=12).score(smooth, Scan(operator, y, 0.1), u, sigma)
    rows = jax.vmap(operator)(jnp.eye(d)[..., None, None]).T
    parts = jnp.concatenate([rows.real, rows.imag])
    bed = beds.Bed(smooth, parts, jnp.concatenate([y.real, y.imag]), 0.1)
    expected = bed.exact().score(smooth, bed.scan, u, sigma)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6, atol=1e-9)


def test_what_fits_already_is_not_moved_and_no_denoiser_gives_a_number():
    bed, sigma = beds.white(), 0.3
    u = bed.prior.sample(jax.random.key(4))
    fits = bed._replace(y=bed.matrix @ bed.prior(u, sigma).ravel())
    assert not MMPS().score(bed.prior, fits.scan, u, sigma)[1].any()
    bad = prior(lambda x, sigma: -9 * x)
    assert bool(jnp.isfinite(MMPS().score(bad, bed.scan, u, sigma)[1]).all())


@pytest.mark.parametrize("iterations", [0, -1, 1.5])
def test_wrong_settings_are_refused(iterations):
    with pytest.raises(ValueError, match="iterations="):
        MMPS(iterations=iterations)
