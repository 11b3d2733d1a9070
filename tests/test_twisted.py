import beds
import exact_laws
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.guidance.none import NoGuidance
from klip_jax.samplers.ancestral import Ancestral
from klip_jax.twisted import Twisted

pytestmark = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


def chain_posterior(bed, sampler):
    """The posterior of what the chain without measurements draws, exactly."""
    sigmas = jnp.append(sampler.levels(), 0.0)
    law, _ = beds.propagate(Ancestral(), bed, NoGuidance(), sigmas)
    return law.posterior(bed.matrix, bed.y, bed.noise_std)


def moments(bed, sampler, runs):
    """Means and second moments of each run, weighted [runs, d], [runs, d, d]."""
    scan = bed.scan._replace(operator=exact_laws.Spectral(bed.matrix, bed.shape))

    @jax.jit
    def one(key):
        found = sampler.run(key, scan, bed.prior)
        w, x = jnp.exp(found.log_weights), found.x.reshape(sampler.particles, -1)
        return w @ x, (w[:, None] * x).T @ x

    return jax.lax.map(one, jax.random.split(KEY, runs))


def test_draws_have_the_posterior_of_the_chain_at_any_number_of_levels():
    # Few levels, where the chain's own law is far from the prior: 12.
    bed = beds.random(4, 0)
    sampler, runs = Twisted(particles=256, steps=12), 60
    means, seconds = moments(bed, sampler, runs)
    target = chain_posterior(bed, sampler)
    centre = np.asarray(target.mean).ravel()
    second = np.asarray(target.covariance) + np.outer(centre, centre)
    for found, expected in ((means, centre), (seconds, second)):
        stderr = found.std(0, ddof=1) / runs**0.5
        # Weights make a bias of order 1 / P; a standard error is 1 / sqrt(60 P).
        assert np.all(np.abs(found.mean(0) - expected) < 5 * stderr + 2e-3)
    # It would not pass with the prior's own posterior.
    far = np.linalg.norm(target.covariance - bed.posterior.covariance)
    assert far > 0.05 * np.linalg.norm(bed.posterior.covariance)


def test_it_is_called_as_other_samplers_are():
    bed = beds.white()
    run = jax.jit(
        lambda key, y: Twisted(particles=8, samples=3, steps=4)(
            key, bed.scan._replace(y=y), bed.prior
        )
    )
    found = run(KEY, bed.y)
    assert found.samples.shape == (3, *bed.shape) and found.first_bad_step == -1
    assert bool(jnp.all(found.std >= 0)) and bool(jnp.isfinite(found.misfit))
    assert run(KEY, bed.y * jnp.nan).first_bad_step >= 0


@pytest.mark.parametrize(
    "settings",
    [dict(particles=1), dict(samples=0), dict(steps=1), dict(sigma_min=0.0)],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Twisted(**settings)
