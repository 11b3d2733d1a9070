"""The estimators of `kl.py` against closed forms, as in experiments/closed_form.py."""

import functools

import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import filters, kl, sde
from klip_jax.blocks import block_sum
from klip_jax.guidance.exact import Exact
from klip_jax.guidance.none import NoGuidance
from klip_jax.guidance.pigdm import PiGDM
from klip_jax.nets.unet import UNet
from klip_jax.priors.edm import EDM


@functools.partial(jax.jit, static_argnames=("n", "settings"))
def estimate(keys, bed, guidance, posterior, levels, *, n, settings=()):
    """Run `levels_kl` on n exact posterior samples; sample i depends on i alone."""
    key, key_noise = keys
    x0 = jax.vmap(lambda i: posterior.sample(jax.random.fold_in(key, i)))(jnp.arange(n))
    given = key_noise, bed.prior, guidance, bed.scan, x0, levels
    return kl.levels_kl(*given, **dict(settings))


def run(seed, bed, levels, guidance=None, *, n, noise_seed=0, **settings):
    """Estimate with samples of `seed` and noise of `noise_seed`."""
    guidance = bed.exact() if guidance is None else guidance
    key = jax.random.key(seed)
    keys = key, jax.random.fold_in(key, noise_seed + 2**20)
    settings = tuple(settings.items())
    return estimate(keys, bed, guidance, bed.posterior, levels, n=n, settings=settings)


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
    found = run(0, bed, levels, PiGDM(prior_var=1.0), n=1024, signs=(1.0,))
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
    exact = Exact(bed.posterior)
    found = run(0, bed, levels, exact, n=16, block=2)
    block_map = block_sum(found.heatmap, 2)
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


def test_the_coherent_map_needs_no_guidance(x64):
    bed, levels = beds.g16(), sde.log_levels(4, 0.05, 5.0)
    with_score, without = (
        run(0, bed, levels, guidance, n=4) for guidance in (bed.exact(), NoGuidance())
    )
    np.testing.assert_allclose(with_score.heatmap[1], without.heatmap[1], 1e-10)
    assert not without.heatmap[0].any() and not without.heatmap[2].any()


@pytest.mark.slow
def test_filtered_coherent_map_is_unbiased(x64):
    bed, sigma = beds.g16(), 0.5
    levels, settings = (
        jnp.array([sigma, 2 * sigma]),
        dict(filter_width=1.5, filter_weight=0.3),
    )
    found = jax.vmap(lambda i: run(i, bed, levels, n=16, **settings).blocks[0, 1])(
        jnp.arange(100)
    )
    mean, stderr = kl.mean_stderr(found[..., 0])
    _, score = bed.exact().score(bed.prior, bed.scan, bed.posterior.mean, sigma)
    filtered = filters.smooth(score, 1.5) ** 2 / filters.white_noise_passed(1.5)
    energy = 0.7 * score**2 + 0.3 * filtered
    expected = sigma**2 * energy[:, 0, 0]
    assert jnp.all(jnp.abs(mean - expected) <= 4.5 * stderr)


def test_result_follows_the_dtype(x64):
    bed = beds.g16()
    given = (bed.prior, bed.exact(), bed.posterior, sde.log_levels(4, 0.05, 5.0))
    prior, exact, posterior, levels = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), given
    )
    x0 = jnp.stack([posterior.mean, posterior.mean + 1, posterior.mean - 1])
    key = jax.random.key(0)
    found = jax.jit(kl.levels_kl)(key, prior, exact, None, x0, levels)
    assert {a.dtype for a in found} == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_levels():
    net = UNet(channels=(16, 32))
    params = net.init(jax.random.key(0), jnp.zeros((32, 32, 1)), jnp.zeros(()))
    prior, x0 = EDM(params, net), jnp.zeros((8, 32, 32, 1))

    @jax.jit
    def estimated(prior, x0, levels):
        return kl.levels_kl(
            jax.random.key(1), prior, NoGuidance(), None, x0, levels, block=4, chunk=2
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
