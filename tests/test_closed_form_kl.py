"""The estimators of `kl.py` against closed forms, as in experiments/closed_form.py."""

import functools

import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import filters, kl, sde
from klip_jax.guidance.base import NoMeasurement
from klip_jax.guidance.exact import Exact
from klip_jax.guidance.pigdm import PiGDM
from klip_jax.nets.unet import UNet
from klip_jax.priors.edm import EDM
from klip_jax.types import StepInfo


@functools.partial(jax.jit, static_argnames=("n", "settings"))
def estimate(keys, bed, likelihood, posterior, levels, *, n, settings=()):
    """Run `levels_kl` on n exact posterior samples; sample i depends on i alone."""
    key, key_noise = keys
    x0 = jax.vmap(lambda i: posterior.sample(jax.random.fold_in(key, i)))(jnp.arange(n))
    return kl.levels_kl(key_noise, bed.prior, likelihood, x0, levels, **dict(settings))


def run(seed, bed, levels, likelihood=None, *, n, noise_seed=0, **settings):
    """Estimate with samples of `seed` and noise of `noise_seed`."""
    likelihood = bed.exact() if likelihood is None else likelihood
    key = jax.random.key(seed)
    keys = key, jax.random.fold_in(key, noise_seed + 2**20)
    settings = tuple(settings.items())
    return estimate(
        keys, bed, likelihood, bed.posterior, levels, n=n, settings=settings
    )


def test_trapezoid_weights():
    levels = jnp.array([0.1, 0.2, 1.0, 3.0])
    np.testing.assert_allclose(kl.trapezoid(levels).sum(), np.log(30), 1e-6)
    # Exact for what is linear in ln s.
    found = kl.trapezoid(levels) @ jnp.log(levels)
    np.testing.assert_allclose(found, (np.log(3) ** 2 - np.log(0.1) ** 2) / 2, 1e-5)


def test_exact_integrand_needs_few_levels(x64):
    # T2: 16 levels are within .02 %.
    bed, levels = beds.g16(), sde.log_levels(16, 0.002, 80.0)
    curve = jax.jit(jax.vmap(lambda s: sum(beds.integrand(bed, bed.exact(), s)).sum()))(
        levels
    )
    np.testing.assert_allclose(kl.trapezoid(levels) @ curve, beds.G16, 3e-4)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (beds.g16, beds.TRUNCATED),
        pytest.param(beds.m16, beds.M16, marks=pytest.mark.slow),
    ],
)
def test_many_levels_estimate_the_kl(build, expected, x64):
    # T4. The truncation to [.01, 50] costs M16 .1 % of its KL.
    found = run(0, build(), sde.log_levels(32, 0.01, 50.0), n=1024, signs=(1.0,))
    mean, stderr = kl.mean_stderr(found.samples.sum((1, 2)))
    assert stderr <= 0.015 * expected
    assert abs(mean - expected) <= 4 * stderr + 1e-3 * expected


def test_integrand_at_each_level_and_pixel(x64):
    # T6: repetitions give the standard errors of guided, coherent, coherent_guided.
    bed, levels = beds.g16(), jnp.array([0.01, 0.1, 0.5, 2.0, 20.0])
    exact = bed.exact()
    found = [run(i, bed, levels, exact, n=64).blocks[..., 0] for i in range(30)]
    found = jnp.stack(found)
    parts = jax.jit(jax.vmap(lambda s: beds.integrand(bed, exact, s)))(levels)
    for k, (sigma, coherent, fluct) in enumerate(
        zip(levels.tolist(), *parts, strict=True)
    ):
        targets = jnp.stack([coherent + fluct, coherent, coherent])
        mean, stderr = kl.mean_stderr(found[:, k])
        assert jnp.all(jnp.abs(mean - targets) <= 4.5 * stderr)
        mean, stderr = kl.mean_stderr(found[:, k].sum(-1))
        assert jnp.all(jnp.abs(mean - targets.sum(-1)) <= 4 * stderr)
        coherent, fluct, _ = beds.G16_TABLE[sigma]
        table = [coherent + fluct, coherent, coherent]
        np.testing.assert_allclose(targets.sum(-1), table, atol=1.1e-6)


def test_guidance_error_shows(x64):
    # T8: PiGDM at many levels is 23 % low.
    bed, levels = beds.g16(), sde.log_levels(32, 0.002, 80.0)
    pigdm = bed.measured(PiGDM, prior_var=1.0)
    found = run(0, bed, levels, pigdm, n=1024, signs=(1.0,))
    mean, stderr = kl.mean_stderr(found.samples.sum((1, 2)))
    assert abs(mean - 8.698) <= 4 * stderr


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 8])
def test_coherent_maps_are_unbiased_and_jackknife_is_their_error(n, x64):
    # n = 3 is the fewest; repetitions judge the mean and the jackknife's mean square.
    bed, levels = beds.g16(), jnp.array([0.3, 0.6])
    weights = kl.trapezoid(levels)
    coherent, fluct = jax.vmap(lambda s: beds.integrand(bed, bed.exact(), s))(levels)
    targets = [weights @ (coherent + fluct).sum(-1), *[weights @ coherent.sum(-1)] * 2]

    def once(i):
        found = run(i, bed, levels, n=n)
        totals = found.left_out.sum((-2, -1))
        return found.heatmap.sum((-2, -1)), kl.jackknife_stderr(totals) ** 2

    values, squares = jax.lax.map(once, jnp.arange(2000), batch_size=500)
    mean, stderr = kl.mean_stderr(values)
    assert jnp.all(jnp.abs(mean - jnp.array(targets)) <= 4 * stderr)
    # Exact for a mean, cautious for a U-statistic (Efron and Stein 1981).
    spread, (squares, error) = values.var(0, ddof=1), kl.mean_stderr(squares)
    np.testing.assert_allclose(squares[0], spread[0], rtol=0.15)
    assert jnp.all(squares[1:] >= spread[1:] - 4 * error[1:])


@pytest.mark.slow
def test_jackknife_of_coherent_maps_is_close_with_many_samples(x64):
    bed, levels = beds.g16(), jnp.array([0.3, 0.6])

    def once(i):
        found = run(i, bed, levels, n=64)
        totals = found.left_out.sum((-2, -1))
        return found.heatmap.sum((-2, -1)), kl.jackknife_stderr(totals) ** 2

    values, squares = jax.lax.map(once, jnp.arange(400), batch_size=100)
    # The relative error of a variance of 400 draws is sqrt(2 / 399) = 7 %.
    np.testing.assert_allclose(squares.mean(0), values.var(0, ddof=1), rtol=0.28)


def test_maps_sum_to_blocks_samples_and_total(x64):
    bed, levels = beds.g16(), sde.log_levels(4, 0.05, 5.0)
    square = bed.prior.replace(mean=bed.prior.mean.reshape(4, 4, 1))
    bed = bed._replace(prior=square)
    exact = Exact(None, None, None, bed.posterior)
    found = run(0, bed, levels, exact, n=16, block=2)
    block_map = kl.block_sum(found.heatmap, 2)
    np.testing.assert_allclose(found.block_map, block_map, 1e-9)
    np.testing.assert_allclose(found.samples.mean(0), block_map[0], 1e-9)
    weights = kl.trapezoid(levels)
    np.testing.assert_allclose(jnp.tensordot(weights, found.blocks, 1), block_map, 1e-9)


@pytest.mark.parametrize("chunk", [2, 4])
def test_chunks_change_nothing(chunk, x64):
    bed, levels = beds.g16(), sde.log_levels(4, 0.05, 5.0)
    one, many = run(0, bed, levels, n=4), run(0, bed, levels, n=4, chunk=chunk)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_more_samples_keep_the_first_ones(x64):
    # The key of a sample does not depend on how many there are.
    bed, levels = beds.g16(), sde.log_levels(4, 0.05, 5.0)
    few, more = (run(0, bed, levels, n=n).samples for n in (4, 6))
    np.testing.assert_allclose(few, more[:4], 1e-9)


def test_antithetic_pairs_remove_what_is_linear_in_the_noise(x64):
    # D is affine: r = x0 - (D(x0 + s z) + D(x0 - s z)) / 2 does not depend on z.
    bed, levels = beds.g16(), sde.log_levels(4, 0.05, 5.0)
    a, b = (run(0, bed, levels, n=4, noise_seed=i).heatmap[1] for i in (1, 2))
    np.testing.assert_allclose(a, b, atol=1e-11)
    single = run(0, bed, levels, n=4, signs=(1.0,)).heatmap[1]
    assert jnp.abs(single - a).max() > 1e-3


def test_the_coherent_map_needs_no_likelihood(x64):
    bed, levels = beds.g16(), sde.log_levels(4, 0.05, 5.0)
    with_score, without = (
        run(0, bed, levels, likelihood, n=4)
        for likelihood in (bed.exact(), NoMeasurement())
    )
    np.testing.assert_allclose(with_score.heatmap[1], without.heatmap[1], 1e-10)
    assert not without.heatmap[0].any() and not without.heatmap[2].any()


def test_filter_keeps_constants_and_scale_zero_changes_nothing():
    images = jax.random.normal(jax.random.key(0), (2, 8, 6, 1))
    np.testing.assert_array_equal(filters.smooth(images, 0.0), images)
    np.testing.assert_allclose(filters.smooth(jnp.ones((8, 6, 1)), 2.0), 1, 1e-6)
    with pytest.raises(ValueError, match="scale"):
        filters.smooth(images, -1.0)


def test_pooling_keeps_the_sum_and_shares_it_among_neighbours():
    maps = jnp.zeros((2, 9, 7)).at[0, 4, 3].set(1.0).at[1, 0, 0].set(2.0)
    pooled = np.asarray(filters.pool(maps, 1.5))
    np.testing.assert_allclose(pooled.sum((1, 2)), [1.0, 2.0], rtol=1e-6)
    assert pooled.min() > 0 and pooled[0].argmax() == 4 * 7 + 3
    # On a line through its middle: a Gaussian, whatever the edges cut off.
    line = pooled[0, :, 3] / pooled[0, 4, 3]
    np.testing.assert_allclose(line, np.exp(-0.5 * (np.arange(-4, 5) / 1.5) ** 2), 1e-5)
    np.testing.assert_array_equal(filters.pool(maps, 0.0), maps)
    with pytest.raises(ValueError, match="pooling=-1"):
        filters.pool(maps, -1.0)


def test_pooled_levels_are_the_pooled_maps():
    bed, levels = beds.g16(), jnp.array([0.3, 0.6])
    plain, pooled = (
        run(0, bed, levels, n=4, block=1, pooling=width) for width in (0.0, 1.5)
    )
    np.testing.assert_allclose(pooled.heatmap, filters.pool(plain.heatmap, 1.5), 1e-4)
    np.testing.assert_allclose(pooled.samples, filters.pool(plain.samples, 1.5), 1e-4)
    np.testing.assert_allclose(
        pooled.block_map.sum((1, 2)), plain.block_map.sum((1, 2)), 1e-4
    )


@pytest.mark.parametrize("scale", [0.0, 0.4, 2.0])
def test_white_noise_that_passes_the_filter(scale):
    noise = jax.random.normal(jax.random.key(0), (200, 48, 48, 1))
    inside = filters.smooth(noise, scale)[:, 12:-12, 12:-12]
    assert jnp.var(inside) == pytest.approx(filters.white_noise_passed(scale), rel=0.02)
    assert filters.white_noise_passed(2.0) == pytest.approx(1 / (16 * np.pi), rel=1e-6)


@pytest.mark.slow
def test_emphasised_coherent_map_is_unbiased(x64):
    bed, sigma = beds.g16(), 0.5
    levels, settings = jnp.array([sigma, 2 * sigma]), dict(scale=1.5, emphasis=0.3)
    found = jax.vmap(lambda i: run(i, bed, levels, n=16, **settings).blocks[0, 1])(
        jnp.arange(100)
    )
    mean, stderr = kl.mean_stderr(found[..., 0])
    _, score = bed.exact().score(bed.prior, bed.posterior.mean, sigma)
    filtered = filters.smooth(score, 1.5) ** 2 / filters.white_noise_passed(1.5)
    energy = 0.7 * score**2 + 0.3 * filtered
    expected = sigma**2 * energy[:, 0, 0]
    assert jnp.all(jnp.abs(mean - expected) <= 4.5 * stderr)


def test_path_kl_counts_the_steps_of_its_window():
    shift = jnp.full((2, 2, 3), 0.2)

    def info(sigma, noise_var):
        sigma, noise_var = jnp.float32(sigma), jnp.float32(noise_var)
        return StepInfo(sigma, sigma / 2, shift, shift, noise_var)

    def total(*window):
        reducer = kl.path_kl(tuple(window)) if window else kl.path_kl()
        acc = reducer.init((2, 2, 3))
        for step in (info(8.0, 0.5), info(4.0, 0.1), info(2.0, 0.02), info(1.0, 0.0)):
            acc = reducer.update(acc, step)
        return reducer.finalize(acc)

    # Three channels of .2^2 / (2 noise_var); the step without noise does not count.
    each = 3 * 0.04 / (2 * np.array([0.5, 0.1, 0.02]))
    np.testing.assert_allclose(total(), np.full((2, 2), each.sum()), 1e-6)
    np.testing.assert_allclose(total(2.0, 4.0)[0, 0], each[1:].sum(), 1e-6)
    np.testing.assert_allclose(total(5.0, 9.0)[0, 0], each[0], 1e-6)


def test_result_follows_the_dtype(x64):
    bed = beds.g16()
    given = (bed.prior, bed.exact(), bed.posterior, sde.log_levels(4, 0.05, 5.0))
    prior, likelihood, posterior, levels = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), given
    )
    x0 = jnp.stack([posterior.mean, posterior.mean + 1, posterior.mean - 1])
    found = jax.jit(kl.levels_kl)(jax.random.key(0), prior, likelihood, x0, levels)
    assert {a.dtype for a in found} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize(
    ("n", "settings", "message"),
    [
        (2, {}, "3"),
        (
            4,
            dict(block=3),
            r"block=3 does not divide a 4x6 .* one of \[1, 2",
        ),
        (4, dict(block=0), "block=0"),
        (4, dict(chunk=2), "chunk=2"),
    ],
)
def test_wrong_settings_are_refused(n, settings, message):
    x0, levels = jnp.zeros((n, 4, 6, 1)), jnp.array([0.1, 0.2, 0.4])
    with pytest.raises(ValueError, match=message):
        kl.levels_kl(
            jax.random.key(0),
            lambda x, s: x,
            NoMeasurement(),
            x0,
            levels,
            **settings,
        )


@pytest.mark.parametrize("window", [(1.0, 1.0), (-1.0, 2.0), (3.0, 2.0)])
def test_wrong_windows_are_refused(window):
    with pytest.raises(ValueError, match="window"):
        kl.path_kl(window)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_levels():
    net = UNet(channels=(16, 32))
    params = net.init(jax.random.key(0), jnp.zeros((32, 32, 1)), jnp.zeros(()))
    prior, x0 = EDM(params, net), jnp.zeros((8, 32, 32, 1))

    @jax.jit
    def estimated(prior, x0, levels):
        return kl.levels_kl(
            jax.random.key(1), prior, NoMeasurement(), x0, levels, block=4, chunk=2
        )

    def temporary(n):
        compiled = estimated.lower(prior, x0, sde.log_levels(n, 0.05, 5.0)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = temporary(16), temporary(256)
    assert few > 1e5
    assert abs(many - few) <= 0.05 * few


@pytest.mark.slow
def test_interval_covers_the_kl(x64):
    # T5: 400 intervals of 95 % from 32 samples each; the standard error is 1.1 %.
    bed, levels = beds.g16(), sde.log_levels(32, 0.01, 50.0)

    def covers(i):
        found = run(i, bed, levels, n=32, signs=(1.0,))
        mean, stderr = kl.mean_stderr(found.samples.sum((1, 2)))
        return jnp.abs(mean - beds.TRUNCATED) <= 2.0395 * stderr

    covered = jax.lax.map(covers, jnp.arange(400), batch_size=20).mean()
    assert 0.92 <= covered <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "seed"), [(2, 0), (32, 1)])
def test_random_problems(dim, seed, x64):
    from closed_form import random_problem

    report = random_problem(dim, seed)
    assert all(check["ok"] for check in report["checks"]), report
