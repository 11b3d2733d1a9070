"""The Gaussian filters against sums by hand; widths that are traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.filters import pool, smooth, white_noise_passed

WIDTHS = [0.0, 0.1, 0.4, 0.8, 1.0, 2.0, 3.5]


def gaussian(side, width):
    """Return the filter's matrix [side, side] in float64, rows summing to 1."""
    distance = np.subtract.outer(np.arange(side), np.arange(side))
    if width == 0:
        return np.eye(side)
    weights = np.exp(-0.5 * (distance / width) ** 2)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("width", WIDTHS)
def test_filters_are_their_sums(width):
    images = np.random.default_rng(0).normal(size=(2, 9, 7, 3)).astype(np.float32)
    rows, columns = gaussian(9, width), gaussian(7, width)
    expected = np.einsum("ih,jw,nhwc->nijc", rows, columns, images)
    found = smooth(jnp.asarray(images), width)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    expected = np.einsum("hi,wj,nhw->nij", rows, columns, images[..., 0])
    found = pool(jnp.asarray(images[..., 0]), width)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_smoothing_keeps_constants_and_pooling_keeps_sums():
    np.testing.assert_allclose(smooth(jnp.ones((8, 6, 1)), 2.0), 1, 1e-6)
    maps = jnp.zeros((2, 9, 7)).at[0, 4, 3].set(1.0).at[1, 0, 0].set(2.0)
    pooled = np.asarray(pool(maps, 1.5))
    np.testing.assert_allclose(pooled.sum((1, 2)), [1.0, 2.0], rtol=1e-6)
    assert pooled.min() > 0 and pooled[0].argmax() == 4 * 7 + 3


@pytest.mark.parametrize("width", WIDTHS)
def test_white_noise_that_passes_is_the_energy_of_the_response(width, x64):
    """Of independent pixels of variance 1 the filter leaves sum_d G(d)^2."""
    impulse = jnp.zeros((81, 81, 1)).at[40, 40, 0].set(1.0)
    energy = jnp.sum(smooth(impulse, width) ** 2)
    np.testing.assert_allclose(white_noise_passed(width), energy, rtol=1e-9)


@pytest.mark.parametrize("width", [1.5, 2.0, 40.0])
def test_white_noise_that_passes_a_wide_filter(width):
    expected = 1 / (4 * np.pi * width**2)
    np.testing.assert_allclose(white_noise_passed(width), expected, rtol=1e-6)
    assert white_noise_passed(0.0) == 1.0


def test_a_width_of_zero_changes_nothing_and_widths_compile_once():
    traces = []

    @jax.jit
    def both(images, width):
        traces.append(1)
        return smooth(images, width), pool(images[..., 0], width)

    images = jax.random.normal(jax.random.key(0), (2, 8, 6, 1)).at[0, 0, 0].set(jnp.nan)
    same, pooled = both(images, 0.0)
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(pooled, images[..., 0])
    for width in (0.5, 2.0):
        np.testing.assert_allclose(both(images, width)[0], smooth(images, width), 1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("width", [-1.0, float("nan"), float("inf")])
def test_wrong_widths_are_refused(width):
    with pytest.raises(ValueError, match=f"filter_width={width}: .* >= 0"):
        smooth(jnp.zeros((4, 4, 1)), width)
    with pytest.raises(ValueError, match=f"pool_width={width}: .* >= 0"):
        pool(jnp.zeros((4, 4)), width)
