"""The shared layers against their definitions, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.nets import base

X = jax.random.normal(jax.random.key(0), (6, 8, 3))
TAPS = [(1, 1), (1, 3, 3, 1), (1, 2, 4, 5)]


def matrix(n, taps, up):
    """Return the resampling of one axis as a matrix, from the formula."""
    taps, pad = np.array(taps) / sum(taps), (len(taps) - 1) // 2
    found = np.zeros((2 * n, n) if up else (n // 2, n))
    for j in range(found.shape[0]):
        for i in range(n):
            k = j + pad - 2 * i if up else i - 2 * j + pad
            if 0 <= k < len(taps):
                found[j, i] = (2 if up else 1) * taps[k]
    return found


@pytest.mark.parametrize("taps", TAPS, ids=str)
@pytest.mark.parametrize("up", [True, False])
def test_resampling_is_its_definition(taps, up):
    change = base.fir_up if up else base.fir_down
    rows, columns = matrix(6, taps, up), matrix(8, taps, up)
    expected = np.einsum("ai,bj,ijc->abc", rows, columns, X)
    np.testing.assert_allclose(change(X, taps), expected, atol=1e-6)


def test_two_taps_are_means_and_nearest_neighbours():
    means = X.reshape(3, 2, 4, 2, 3).mean((1, 3))
    np.testing.assert_allclose(base.fir_down(X, (1, 1)), means, atol=1e-6)
    np.testing.assert_allclose(base.fir_up(means, (1, 1))[::2, 1::2], means, atol=1e-6)


def test_a_margin_may_come_with_the_image():
    inner = base.fir_down(X, (1, 3, 3, 1), pad=False)
    outer = base.fir_down(jnp.pad(X, ((1, 1), (1, 1), (0, 0))), (1, 3, 3, 1), pad=False)
    assert inner.shape == (2, 3, 3)
    np.testing.assert_allclose(outer, base.fir_down(X, (1, 3, 3, 1)), atol=1e-6)


def test_taps_are_even():
    with pytest.raises(ValueError, match="even number"):
        base.fir_up(X, (1, 2, 1))


def test_attention_of_each_head_is_its_own():
    q, k, v = jax.random.normal(jax.random.key(1), (3, 4, 2, 6))
    found = base.attend(q, k, v, heads=3)
    for head in range(3):
        own = [a[..., 2 * head : 2 * head + 2].reshape(8, 2) for a in (q, k, v)]
        weights = np.exp(own[0] @ own[1].T / np.sqrt(2))
        expected = weights / weights.sum(1, keepdims=True) @ own[2]
        part = found[..., 2 * head : 2 * head + 2].reshape(8, 2)
        np.testing.assert_allclose(part, expected, 1e-4, 1e-5)


def test_sinusoids():
    for shift in (0, 1):
        found = base.sinusoids(jnp.float32(37.0), 8, freq_shift=shift)
        angles = 37.0 * 10000.0 ** (-np.arange(4) / (4 - shift))
        expected = np.concatenate([np.sin(angles), np.cos(angles)])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_normalisation_is_over_the_whole_image():
    class Norm(base.nn.Module):
        @base.nn.compact
        def __call__(self, x):
            return base.group_norm(x, groups=2)

    x = 3 + 2 * jax.random.normal(jax.random.key(2), (5, 4, 6))
    found, _ = Norm().init_with_output(jax.random.key(0), x)
    for group in (np.s_[..., :3], np.s_[..., 3:]):
        expected = (x[group] - x[group].mean()) / x[group].std()
        np.testing.assert_allclose(found[group], expected, atol=1e-5)
