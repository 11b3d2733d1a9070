"""Scan -> Posterior: exactness, keys, misfit, and settings that cannot work."""

import functools

import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import struct
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.guidance.none import NoGuidance
from klip_jax.operators.base import Operator
from klip_jax.posterior import PosteriorSampler, at_null_label, misfit
from klip_jax.sample import sample
from klip_jax.samplers.ancestral import Ancestral
from klip_jax.samplers.heun import Heun
from klip_jax.samplers.langevin import Langevin
from klip_jax.scan import simulate
from klip_jax.types import Posterior, Scan

KEY = jax.random.key(0)
SMALL = PosteriorSampler(samples=3, steps=4)
draw = jax.jit(PosteriorSampler.__call__)


@pytest.fixture
def bed():
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), beds.white())


def test_levels_go_down_to_zero():
    levels = PosteriorSampler(steps=5, sigma_max=10.0, sigma_min=0.001).levels()
    np.testing.assert_allclose(levels[:-1], np.geomspace(10, 0.001, 5), 1e-5)
    assert levels.shape == (6,) and levels[-1] == 0


def test_samples_are_chains_of_their_own_keys(bed):
    found = draw(SMALL, KEY, bed.scan, bed.prior)
    given = SMALL.sampler, bed.prior, SMALL.levels(), bed.shape
    measured = dict(guidance=SMALL.guidance, scan=bed.scan)
    chain = jax.jit(lambda key: sample(key, *given, **measured).x)
    for n in range(3):
        alone = chain(jax.random.fold_in(KEY, n))
        np.testing.assert_allclose(found.samples[n], alone, atol=1e-5)
    np.testing.assert_allclose(found.mean, found.samples.mean(0), 1e-6)
    np.testing.assert_allclose(found.std, found.samples.std(0), 1e-6)
    assert found.first_bad_step == -1


def test_the_first_samples_do_not_depend_on_how_many_follow(bed):
    few = draw(SMALL, KEY, bed.scan, bed.prior).samples
    more = draw(SMALL.replace(samples=5), KEY, bed.scan, bed.prior).samples
    np.testing.assert_allclose(few, more[:3], atol=1e-5)


def test_draws_of_a_white_prior_have_its_posterior_and_misfit(x64):
    # Exact at any number of levels: v is the prior's own error, not 3 times that.
    bed, n = beds.white(), 4000
    sampler = PosteriorSampler(guidance=ConditionalGaussian(), samples=n, steps=3)
    found = draw(sampler, KEY, bed.scan, bed.prior)
    law = bed.posterior
    spread = jnp.diag(law.covariance)
    gap = jnp.abs((found.mean - law.mean).ravel())
    assert jnp.all(gap <= 4.5 * jnp.sqrt(spread / n))
    ratio = found.std.ravel() / jnp.sqrt(spread)
    np.testing.assert_allclose(ratio, 1, atol=4.5 / np.sqrt(2 * n))
    # E |y - A x|^2 / s^2 over the posterior, in closed form.
    r = bed.y - bed.matrix @ law.mean.ravel()
    covariance = bed.matrix @ law.covariance @ bed.matrix.T
    expected = (r @ r + jnp.trace(covariance)) / bed.noise_std**2 / 5
    np.testing.assert_allclose(found.misfit, expected, rtol=0.05)


def test_prior_inflation_widens_the_posterior(bed):
    narrow, wide = (
        PosteriorSampler(guidance=ConditionalGaussian(v), samples=200, steps=3)
        for v in (1.0, 9.0)
    )
    one, other = (draw(s, KEY, bed.scan, bed.prior) for s in (narrow, wide))
    assert other.std.mean() > 1.2 * one.std.mean()


def test_misfit_of_the_truth_is_one_on_average():
    bed = beds.white()
    keys = jax.random.split(KEY, 2000)
    for noise_std in (0.2, jnp.geomspace(0.05, 0.8, 5)):

        @jax.jit
        @jax.vmap
        def of(key, noise_std=noise_std):
            x = bed.prior.sample(key)
            return misfit(simulate(key, bed.scan.operator, x, noise_std), x[None])

        found = of(keys)
        np.testing.assert_allclose(found.mean(), 1, atol=4.5 * np.sqrt(2 / 5 / 2000))


def test_misfit_counts_a_complex_measurement_as_two(x64):
    class Twist(Operator):
        out_dtype = jnp.complex128

        def __init__(self):
            super().__init__()
            self.in_shape = self.out_shape = (4, 1, 1)

        def __call__(self, x):
            return (1 + 2j) * x

    x = jax.random.normal(KEY, (4, 1, 1))
    of = jax.vmap(lambda key: misfit(simulate(key, Twist(), x, 0.3), x[None]))
    found = of(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(found.mean(), 1, atol=4.5 * np.sqrt(2 / 8 / 2000))


def test_jit_of_vmap_is_a_loop(bed):
    ys = jnp.stack([bed.y, bed.y + 0.1, -bed.y])
    keys = jax.random.split(KEY, 3)

    scans = bed.scan._replace(y=ys)
    axes = (0, bed.scan._replace(operator=None, y=0, noise_std=None), None)
    batch = jax.jit(jax.vmap(SMALL, axes))(keys, scans, bed.prior)
    assert isinstance(batch, Posterior)
    for i in range(3):
        alone = draw(SMALL, keys[i], bed.scan._replace(y=ys[i]), bed.prior)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5),
            jax.tree.map(lambda a, i=i: a[i], batch),
            alone,
        )


def test_settings_are_leaves_and_do_not_recompile(bed):
    run = jax.jit(lambda sampler: sampler(KEY, bed.scan, bed.prior).mean)
    for high, low, inflation in ((20.0, 0.01, 3.0), (5.0, 0.1, 3.0), (20.0, 0.01, 1.0)):
        guidance = ConditionalGaussian(inflation)
        run(SMALL.replace(guidance=guidance, sigma_max=high, sigma_min=low))
    assert run._cache_size() == 1


@struct.dataclass
class Classes:
    """A prior that knows classes, and denoises only once it is told one."""

    prior: object

    def given(self, label):
        assert label is None
        return self.prior


def test_a_conditional_prior_is_used_at_its_null_label(bed):
    found = draw(SMALL, KEY, bed.scan, Classes(bed.prior))
    expected = draw(SMALL, KEY, bed.scan, bed.prior)
    np.testing.assert_array_equal(found.samples, expected.samples)
    assert at_null_label(bed.prior) is bed.prior


@struct.dataclass
class BreaksAt:
    """The white prior, NaN at one noise level for measurements that are positive."""

    bad: float

    def __call__(self, x, sigma):
        return jnp.where(jnp.isclose(sigma, self.bad), jnp.nan, x / (1 + sigma**2))

    def variance(self, sigma):
        return sigma**2 / (1 + sigma**2)


@pytest.mark.parametrize("step", [0, 2, 3])
def test_the_first_bad_step_is_told(bed, step):
    prior = BreaksAt(float(SMALL.levels()[step]))
    found = draw(SMALL, KEY, bed.scan, prior)
    assert found.first_bad_step == step and not jnp.isfinite(found.mean).any()


@pytest.mark.parametrize(
    "sampler", [Ancestral(), Heun(), Langevin(steps=2)], ids=lambda s: type(s).__name__
)
def test_other_samplers_draw_too_and_calls_are_counted(bed, sampler):
    chosen = SMALL.replace(sampler=sampler)
    found = draw(chosen, KEY, bed.scan, bed.prior)
    assert jnp.isfinite(found.samples).all() and found.first_bad_step == -1
    assert chosen.network_calls == 3 * 4 * sampler.calls_per_step


def test_nothing_measured_draws_the_prior(bed):
    chosen = SMALL.replace(sampler=Ancestral(), guidance=NoGuidance(), samples=500)
    far = Scan(bed.scan.operator, bed.y + 100, bed.noise_std)
    found = draw(chosen, KEY, far, bed.prior)
    assert jnp.abs(found.mean - bed.prior.mean).max() < 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(samples=0), "samples=0: need an integer >= 1"),
        (dict(samples=2.5), "samples=2.5"),
        (dict(steps=1), "steps=1: need an integer >= 2"),
        (dict(sigma_min=0.0), "sigma_min=0.0, sigma_max=20.0: need 0 < lowest"),
        (dict(sigma_min=3, sigma_max=2), "sigma_min=3, sigma_max=2"),
        (dict(sigma_max=float("nan")), "sigma_max=nan"),
        (dict(sigma_max=float("inf")), "sigma_max=inf"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PosteriorSampler(**settings)
