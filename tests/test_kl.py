"""What the estimators of `kl.py` compute, by hand; `test_closed_form_kl` asks for more.

The guidance here shifts every image by the same known number, and the denoiser shrinks:
every map has a closed form at any noise.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from klip_jax import kl, sde, struct
from klip_jax.blocks import block_sum, check_block, top_mean
from klip_jax.filters import pool
from klip_jax.types import StepInfo

SHAPE = (8, 12, 2)
LEVELS = sde.log_levels(4, 0.05, 2.0)
SAMPLES = jax.random.normal(jax.random.key(0), (5, *SHAPE))


@struct.dataclass
class Shrink:
    """D = x / (1 + sigma^2), the denoiser of N(0, I)."""

    def __call__(self, x, sigma):
        return x / (1 + sigma**2)

    def variance(self, sigma):
        return sigma**2 / (1 + sigma**2)


@struct.dataclass
class Constant:
    """A likelihood score that is the same everywhere."""

    score_map: Array

    def score(self, denoiser, scan, x, sigma):
        return denoiser(x, sigma), self.score_map


C = 1 + jnp.arange(8.0 * 12 * 2).reshape(SHAPE) / 100


@functools.partial(jax.jit, static_argnames=("block", "chunk"))
def run(samples=SAMPLES, levels=LEVELS, **settings):
    given = jax.random.key(1), Shrink(), Constant(C), None, samples, levels
    return kl.levels_kl(*given, **settings)


def test_trapezoid_weights():
    levels = jnp.array([0.1, 0.2, 1.0, 3.0])
    np.testing.assert_allclose(kl.trapezoid(levels).sum(), np.log(30), 1e-6)
    # Exact for what is linear in ln s.
    integral = kl.trapezoid(levels) @ jnp.log(levels)
    np.testing.assert_allclose(integral, (np.log(3) ** 2 - np.log(0.1) ** 2) / 2, 1e-5)


def test_the_maps_are_their_formulas():
    maps, weights = run(block=4), kl.trapezoid(LEVELS)
    # d = s^2 c for every sample: d^2 / s^2, and the U-statistic of constants.
    guided = (weights * LEVELS**2).sum() * jnp.sum(C**2, -1)
    np.testing.assert_allclose(maps.heatmap[0], guided, rtol=1e-4)
    np.testing.assert_allclose(maps.heatmap[2], guided, rtol=1e-4)
    # r = x0 s^2 / (1 + s^2), as the signs cancel the noise.
    shrunk = (weights * LEVELS**2 / (1 + LEVELS**2) ** 2).sum()
    coherent = shrunk * kl.coherent(SAMPLES)[0].sum(-1)
    np.testing.assert_allclose(maps.heatmap[1], coherent, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(maps.block_map, block_sum(maps.heatmap, 4), rtol=1e-3)
    density = jnp.tensordot(weights, maps.blocks, 1)
    np.testing.assert_allclose(density, block_sum(maps.heatmap, 4), rtol=1e-3)
    np.testing.assert_allclose(maps.samples.mean(0), maps.block_map[0], rtol=1e-4)


def test_leaving_a_sample_out_is_running_without_it():
    maps = run(block=4)
    # The key of a sample is that of its number: leave out the last.
    fewer = run(SAMPLES[:-1], block=4)
    np.testing.assert_allclose(maps.left_out[-1], fewer.block_map, rtol=2e-3, atol=1e-3)
    assert maps.left_out.shape == (5, 3, 2, 3)


def test_pooling_and_chunks_are_those_of_the_maps():
    plain, pooled = run(), run(pool_width=1.5, chunk=2)
    np.testing.assert_allclose(pooled.heatmap, pool(plain.heatmap, 1.5), atol=1e-4)
    np.testing.assert_allclose(pooled.blocks, pool(plain.blocks, 1.5), atol=1e-4)


def test_coherent_is_the_mean_over_pairs():
    v = np.asarray(SAMPLES, np.float64)
    pairs = [v[n] * v[m] for n in range(5) for m in range(5) if n != m]
    whole, left_out = kl.coherent(SAMPLES)
    np.testing.assert_allclose(whole, np.mean(pairs, 0), atol=1e-5)
    for n in range(5):
        without = kl.coherent(jnp.delete(SAMPLES, n, 0))[0]
        np.testing.assert_allclose(left_out[n], without, atol=1e-5)


@pytest.mark.parametrize("width", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("weight", [0.05, 0.4, 1.0])
def test_the_filter_counts_white_noise_like_the_plain_term(width, weight):
    """An impulse, the law of white noise: (1 - a) + a sum G^2 / g = 1."""
    impulse = jnp.zeros((4, 33, 33, 1)).at[:, 16, 16].set(1.0)
    whole, left_out = kl.coherent(impulse, width, weight)
    assert whole.sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(left_out.sum((1, 2, 3)), 1, rtol=1e-5)


def test_the_filter_counts_wide_changes_more():
    """A constant passes whole: (1 - a) + a / g."""
    wide = jnp.ones((4, 33, 33, 1))
    whole, _ = kl.coherent(wide, 2.0, 0.4)
    np.testing.assert_allclose(whole[16, 16], 0.6 + 0.4 * 16 * np.pi, rtol=1e-4)


def test_no_weight_and_no_width_is_the_plain_statistic():
    plain = kl.coherent(SAMPLES)
    for width, weight in [(0.0, 0.7), (2.0, 0.0)]:
        filtered = jax.jit(kl.coherent)(SAMPLES, width, weight)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), filtered, plain
        )


def test_windows_and_widths_compile_once():
    traces = []

    @jax.jit
    def total(window, width, weight):
        traces.append(1)
        levels = sde.log_levels(4, *window)
        maps = run(levels=levels, filter_width=width, filter_weight=weight)
        return maps.heatmap.sum((1, 2))

    totals = [
        total(window, width, 0.1)
        for window in ((0.05, 1.0), (0.1, 1.0), (0.1, 3.0))
        for width in (0.0, 1.0, 2.0)
    ]
    assert len(traces) == 1 and len({float(t[1]) for t in totals}) == 9


def test_standard_errors():
    values = jnp.array([1.0, 2.0, 4.0, 9.0])
    mean, stderr = kl.mean_stderr(values)
    assert mean == 4.0
    np.testing.assert_allclose(stderr, np.std(values, ddof=1) / 2, rtol=1e-6)
    # Of a mean the jackknife's is the same.
    left_out = (values.sum() - values) / 3
    np.testing.assert_allclose(kl.jackknife_stderr(left_out), stderr, rtol=1e-6)


def test_path_kl_counts_the_steps_of_its_window():
    shift = jnp.full((2, 2, 3), 0.2)

    def info(sigma, noise_var):
        sigma, noise_var = jnp.float32(sigma), jnp.float32(noise_var)
        return StepInfo(sigma, sigma / 2, shift, shift, shift, noise_var)

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


@pytest.mark.parametrize(
    ("n", "settings", "message"),
    [
        (2, {}, "2 samples: the jackknife needs at least 3"),
        (4, dict(block=3), r"block=3 does not divide a 8x12 .* one of \[1, 2, 4\]"),
        (4, dict(block=0), "block=0"),
        (4, dict(chunk=3), "chunk=3 does not divide 4 levels"),
        (4, dict(pool_width=-1.0), "pool_width=-1.0"),
        (4, dict(filter_width=-1.0), "filter_width=-1.0"),
    ],
)
def test_wrong_settings_are_refused(n, settings, message):
    with pytest.raises(ValueError, match=message):
        run.__wrapped__(SAMPLES[:n], **settings)


@pytest.mark.parametrize("window", [(1.0, 1.0), (-1.0, 2.0), (3.0, 2.0)])
def test_wrong_windows_are_refused(window):
    with pytest.raises(ValueError, match="window"):
        kl.path_kl(window)


def test_blocks():
    image = jnp.arange(24.0).reshape(4, 6)
    blocks = block_sum(image, 2)
    np.testing.assert_array_equal(blocks[0], [0 + 1 + 6 + 7, 2 + 3 + 8 + 9, 30])
    assert top_mean(blocks, 0.0) == blocks.max() == blocks[1, 2]
    assert top_mean(blocks, 0.3) == (blocks[1, 2] + blocks[1, 1]) / 2
    with pytest.raises(ValueError, match="block=4 does not divide a 4x6"):
        check_block(4, (4, 6))
