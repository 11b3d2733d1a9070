import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import sde
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.guidance.pigdm import PiGDM
from klip_jax.kl import path_kl
from klip_jax.sample import sample
from klip_jax.samplers.resampling import Resampling

pytestmark = pytest.mark.usefixtures("x64")
GUIDANCE = ConditionalGaussian()


def run(bed, n, n_levels):
    sigmas = jnp.append(sde.log_levels(n_levels, 0.02, 20.0)[::-1], 0.0)

    @jax.jit
    def chains(bed, keys):
        given = dict(guidance=GUIDANCE, scan=bed.scan, reducer=path_kl())

        def one(key):
            return sample(key, Resampling(), bed.prior, sigmas, bed.shape, **given)

        return jax.vmap(one)(keys)

    return chains(bed, jax.random.split(jax.random.key(0), n))


def test_draws_the_exact_posterior_of_a_white_prior():
    # With any number of levels: each draw of x0 is exact.
    bed, n = beds.white(), 10_000
    chains = run(bed, n, 4)
    assert not chains.reduced.any()  # and no path KL is claimed
    centred = chains.x.reshape(n, -1) - bed.posterior.mean.ravel()
    covariance = bed.posterior.covariance
    spread = jnp.diag(covariance)
    assert jnp.all(jnp.abs(centred.mean(0)) <= 4.5 * jnp.sqrt(spread / n))
    stderr = jnp.sqrt((covariance**2 + jnp.outer(spread, spread)) / n)
    assert jnp.all(jnp.abs(centred.T @ centred / n - covariance) <= 4.5 * stderr)


def test_shift_is_the_move_of_the_conditional_mean():
    bed, sigma = beds.white(), 0.4
    x = bed.prior.sample(jax.random.key(1))
    _, info = Resampling().step(
        jax.random.key(2), x, bed.prior, GUIDANCE, bed.scan, sigma, 0.0
    )
    expected = bed.posterior(x, sigma) - bed.prior(x, sigma)
    np.testing.assert_allclose(info.shift, expected, atol=1e-10)
    np.testing.assert_allclose(info.x0, bed.prior(x, sigma), atol=1e-12)
    np.testing.assert_array_equal(info.x, x)


def test_a_guidance_without_draws_is_refused_in_words():
    bed = beds.white()
    sigmas = jnp.array([1.0, 0.1, 0.0])
    with pytest.raises(ValueError, match=r"PiGDM has no draw.*ConditionalGaussian"):
        sample(
            jax.random.key(0),
            Resampling(),
            bed.prior,
            sigmas,
            bed.shape,
            guidance=PiGDM(),
            scan=bed.scan,
        )
