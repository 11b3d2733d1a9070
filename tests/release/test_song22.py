import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import sde
from klip_jax.operators.radial import RadialLines
from klip_jax.priors.analytic import Gaussian
from klip_jax.priors.function import prior
from klip_jax.release import song22
from klip_jax.sample import sample

SHAPE = (6, 6, 1)
PRIOR = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(36), jnp.full(36, 0.25))
OPERATOR = RadialLines(SHAPE, views=4, expansion=2)
SCAN = song22.measured(OPERATOR, OPERATOR(PRIOR.sample(jax.random.key(1))))
KEY, SIGMA, NEXT = jax.random.key(0), jnp.float32(0.6), jnp.float32(0.4)


def test_projecting_is_replacing_what_is_seen():
    x, z = jax.random.normal(KEY, (2, *SHAPE))
    found = SCAN.project(x, 0.3 * z, 0.8)
    blend = SCAN.y + 0.3 * OPERATOR(z) - OPERATOR(x)
    np.testing.assert_allclose(found, 0.8 * OPERATOR.adjoint(blend), atol=1e-6)


def test_what_is_recorded_holds_the_fresh_noise():
    x = 0.5 + 0.6 * jax.random.normal(jax.random.key(1), SHAPE)
    noises = jax.random.normal(KEY, (4, *SHAPE))
    given = x, PRIOR, SCAN, SIGMA, NEXT
    moved, info = song22.Song22(as_recorded=True).move(noises, *given)
    same, without = song22.Song22().move(noises, *given)
    np.testing.assert_array_equal(moved, same)
    expected = SCAN.project(x, SIGMA * noises[0], 0.841)
    np.testing.assert_allclose(info.shift, expected, atol=1e-6)
    silent = noises.at[0].set(0)
    other = song22.Song22(as_recorded=True).move(silent, *given)[1].shift
    first = SCAN.project(x, 0.0, 0.841)
    np.testing.assert_allclose(other, first, atol=1e-6)
    assert jnp.abs(without.shift - first).max() > 1e-3  # and the second projection's


def chains(n, start, batch_axis):
    """Return the last images of samples start .. start + n - 1."""
    sampler = song22.Song22(batch_axis=batch_axis)
    levels = jnp.append(sde.log_levels(5, 0.01, 128.0)[::-1], 0)

    def one(i):
        key = jax.random.fold_in(KEY, i)
        return sample(key, sampler, PRIOR, levels, SHAPE, scan=SCAN).x

    return jax.vmap(one, axis_name="batch")(start + jnp.arange(n))


@pytest.mark.slow
def test_samples_do_not_depend_on_their_batch_unless_asked_to():
    @jax.jit
    def all_groups():
        groups = ((4, 0), (1, 0), (3, 1))
        return [[chains(*g, axis) for g in groups] for axis in (None, "batch")]

    for couples, (whole, *parts) in enumerate(all_groups()):
        gap = jnp.abs(whole - jnp.concatenate(parts)).max()
        assert (gap > 1e-3) == couples


def test_its_levels_are_those_of_the_even_grid():
    sigma, following = song22.levels(50)
    even = sde.log_levels(50, 0.01, 128.0)[::-1]
    np.testing.assert_allclose(sigma, even, rtol=1e-4)
    np.testing.assert_allclose(following[:-1], even[1:], rtol=1e-3)
    assert following[-1] < 2e-4  # 0 on the even grid


@pytest.mark.parametrize("settings", [dict(coefficient=0.0), dict(snr=0.0)])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"0\.0: must be"):
        song22.Song22(**settings)


def test_chain_of_the_release(shared_data):
    """With the score of a Gaussian prior, given its noises."""
    with np.load(shared_data / "golden" / "song22_gauss_64_N20.npz") as kept:
        kept = dict(kept)
    operator = RadialLines((64, 64, 1), views=23, contested="last")
    known = operator.from_spectrum(jnp.asarray(kept["known"]))
    mean, variance = (kept[f"prior_{name}"][..., None] for name in ("mean", "var"))
    sigmas, following = song22.levels(20)
    g = song22.training_g()

    sampler = song22.Song22(as_recorded=True, batch_axis="samples")
    scan = song22.measured(operator, known)

    @prior
    def denoiser(x, sigma):
        return x + sigma**2 * (mean - x) / (variance + sigma**2)

    @jax.jit
    def run(scan, start, noises):
        def one(noises, x, *levels):
            return sampler.move(noises, x, denoiser, scan, *levels)

        def step(x, inputs):
            noises, *levels = inputs
            over = jax.vmap(one, (1, 0, None, None), axis_name="samples")
            x, info = over(noises, x, *levels)
            return x, info.shift / g(levels[0])

        x, updates = jax.lax.scan(step, 128 * start, (noises, sigmas, following))
        end = lambda x: song22.finish(x, denoiser, scan, jnp.asarray(sigmas)[-1])  # noqa: E731
        return jax.vmap(end)(x), updates

    given = (kept[name][..., None] for name in ("prior_noise", "step_noise"))
    x, updates = run(scan, *given)
    expected = np.moveaxis(kept["normalized_updates"], 2, -1)
    gap = np.abs(updates - expected).max((1, 2, 3, 4))
    assert (gap / np.abs(expected).max((1, 2, 3, 4))).max() <= 1e-4
    np.testing.assert_allclose(x[..., 0], kept["samples"], atol=1e-5)
