import numpy as np
import pytest

from klip_jax.rank_statistics import ranks, spread_over_error, uniform_p_value


def problem(width=1.0, bias=0.0, repetitions=2000, draws=9):
    """x | y ~ N(y / 2, 1 / 2), and draws that are too wide or off."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(repetitions, 2))
    y = x + rng.normal(size=x.shape)
    z = rng.normal(size=(repetitions, draws, 2))
    return x, y[:, None] / 2 + bias + width * np.sqrt(0.5) * z


def test_ranks_by_hand():
    truth = np.array([[1.0, 5.0]])
    draws = np.array([[[0.0, 6.0], [0.5, 7.0], [2.0, 4.0]]])
    np.testing.assert_array_equal(ranks(truth, draws), [[2, 1]])


def test_exact_draws_have_uniform_ranks_and_the_right_spread():
    truth, draws = problem()
    assert uniform_p_value(ranks(truth, draws), 9).min() > 0.01
    # Its standard error is about 1 / sqrt(2 * 4000).
    assert spread_over_error(truth, draws) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("width", [0.8, 1.25])
def test_wrong_spreads_are_told(width):
    truth, draws = problem(width)
    assert uniform_p_value(ranks(truth, draws), 9).max() < 1e-4
    # m errs by its draws too: (1 / 2) (1 + width^2 / L).
    expected = width * np.sqrt((1 + 1 / 9) / (1 + width**2 / 9))
    assert spread_over_error(truth, draws) == pytest.approx(expected, rel=0.05)
    counts = np.bincount(ranks(truth, draws).ravel(), minlength=10)
    assert (counts[[0, 9]].mean() > counts[4:6].mean()) == (width < 1)


def test_a_bias_is_told():
    truth, draws = problem(bias=0.2)
    assert uniform_p_value(ranks(truth, draws), 9).max() < 1e-4


def test_p_values_are_uniform_themselves():
    rng = np.random.default_rng(1)
    p = uniform_p_value(rng.integers(0, 20, (300, 400)), 19)
    # 400 p-values: the share below .1 has a standard error of .015.
    assert abs(np.mean(p < 0.1) - 0.1) < 0.06


def test_what_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match=r"0 \.\. 9"):
        uniform_p_value(np.array([[10]]), 9)
    with pytest.raises(ValueError, match="need 5 a bin"):
        uniform_p_value(np.zeros((20, 1), int), 9)
    with pytest.raises(ValueError, match="at least 2"):
        spread_over_error(np.zeros((3, 1)), np.zeros((3, 1, 1)))
