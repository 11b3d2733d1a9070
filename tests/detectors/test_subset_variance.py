import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import sde
from klip_jax.detectors.subset_variance import (
    Subset,
    SubsetVariance,
    random_subset,
    reconstructions,
    slices,
)
from klip_jax.operators.base import Operator
from klip_jax.operators.ct import ParallelBeam
from klip_jax.operators.identity import Identity
from klip_jax.operators.mri import Cartesian
from klip_jax.priors.analytic import Gaussian
from klip_jax.samplers.ddim import DDIM
from klip_jax.samplers.resampling import Resampling
from klip_jax.scan import conditional_shift, residual
from klip_jax.types import Scan

SHAPE, VIEWS, NOISE_STD = (6, 6, 1), 6, 0.1
OPERATOR = ParallelBeam(SHAPE, views=VIEWS)
PRIOR = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(36), jnp.full(36, 0.04))
SIGMAS = jnp.append(sde.log_levels(5, 0.05, 5.0)[::-1], 0)


@pytest.fixture(scope="module")
def run():
    """Two subsets of two of the six views: at least two views are in neither."""

    @jax.jit
    def of(y, noise_std, sampler):
        key, settings = jax.random.key(0), dict(subsets=2, share=1 / 3, sampler=sampler)
        scan = Scan(OPERATOR, y, noise_std)
        return reconstructions(key, scan, PRIOR, SIGMAS, **settings)

    return of


@pytest.fixture(scope="module")
def y():
    return OPERATOR(PRIOR.sample(jax.random.key(1)))


class Rows(Operator):
    """Some rows of a matrix, the rest not there at all."""

    def __init__(self, matrix):
        self.matrix, self.in_shape, self.out_shape = matrix, SHAPE, (len(matrix),)

    def __call__(self, x):
        return self.matrix @ x.ravel()


def test_a_dropped_row_is_as_if_it_were_not_there(y):
    keep = random_subset(jax.random.key(2), y.shape, share=0.5, axis=None)
    subset = Subset(OPERATOR, keep.astype(y.dtype))
    subset = Scan(subset, jnp.where(keep, y, 0), NOISE_STD)
    rows = OPERATOR.matrix[keep.ravel()]
    fewer = Scan(Rows(rows), y[keep], NOISE_STD)
    x0, variance = PRIOR.mean, 0.03
    found, expected = (
        jax.jit(conditional_shift)(scan, x0, variance) for scan in (subset, fewer)
    )
    exact = (
        variance
        * np.asarray(rows.T, np.float64)
        @ np.linalg.solve(
            variance * np.asarray(rows @ rows.T) + NOISE_STD**2 * np.eye(len(rows)),
            np.asarray(residual(fewer, x0), np.float64),
        )
    )
    # The subset's iteration stops at a residual of 1e-3.
    scale = np.abs(exact).max()
    np.testing.assert_allclose(expected.ravel(), exact, atol=1e-3 * scale)
    np.testing.assert_allclose(found.ravel(), exact, atol=1e-2 * scale)


@pytest.mark.parametrize("sampler", [DDIM(), Resampling()], ids=["ddim", "resampling"])
def test_dropped_views_change_nothing(run, y, sampler):
    plain = run(y, NOISE_STD, sampler=sampler)
    for wrong in (3.0, jnp.nan):
        changed = [
            not all(
                map(
                    np.array_equal,
                    run(y.at[i].set(wrong), NOISE_STD, sampler=sampler),
                    plain,
                )
            )
            for i in range(VIEWS)
        ]
        # Each subset has two views, and they may share some.
        assert 2 <= sum(changed) <= 4


def test_only_the_subsets_vary(run, y):
    informed, uninformed = run(y, NOISE_STD, DDIM()), run(y, 1e4, DDIM())
    assert informed.variance.mean() > 1e-3
    assert uninformed.variance.max() < 1e-6


def test_the_adjoint_of_a_subset(y):
    keep = random_subset(jax.random.key(3), y.shape, share=0.5, axis=1)
    subset = Subset(OPERATOR, keep.astype(y.dtype))
    x = PRIOR.sample(jax.random.key(4))
    left, right = jnp.vdot(subset(x), y), jnp.vdot(x, subset.adjoint(y))
    np.testing.assert_allclose(left, right, rtol=1e-5)
    np.testing.assert_array_equal(subset(x), jnp.where(keep, OPERATOR(x), 0))


@pytest.mark.parametrize(("axis", "n"), [(0, 4), (1, 10), (-1, 3), (None, 120)])
def test_a_subset_keeps_its_share_of_whole_slices(axis, n):
    shape, share = (4, 10, 3), 0.5
    keep = np.asarray(random_subset(jax.random.key(5), shape, share=share, axis=axis))
    assert keep.shape == shape
    if axis is not None:
        others = tuple(i for i in range(3) if i != axis % 3)
        assert np.array_equal(keep.all(others), keep.any(others))
        keep = keep.any(others)
    assert keep.sum() == round(share * n)


def test_subsets_are_random():
    keys = jax.random.split(jax.random.key(6), 40)
    kept = jax.vmap(lambda key: random_subset(key, (6, 2), share=0.5, axis=0))(keys)
    share = kept.mean(0)
    # 40 draws of a half have a standard error of .08.
    assert np.all(np.abs(share - 0.5) < 0.3)


def test_errors_speak(y):
    arguments = jax.random.key(0), Scan(OPERATOR, y, NOISE_STD), PRIOR, SIGMAS
    with pytest.raises(ValueError, match="subsets=1: must be an integer >= 2"):
        SubsetVariance(subsets=1)
    with pytest.raises(ValueError, match="must increase"):
        SubsetVariance(sigma_min=3.0, sigma_max=2.0)
    with pytest.raises(ValueError, match=r"share=1.0: must be in \(0, 1\)"):
        SubsetVariance(share=1.0)
    for share, count in ((0.05, 0), (1.0, 6)):
        words = f"share={share} keeps {count} of 6 measurements along axis=0"
        with pytest.raises(ValueError, match=words):
            reconstructions(*arguments, sampler=DDIM(), share=share)
    assert SubsetVariance(subsets=8, steps=20).network_calls == 160


def test_what_a_scanner_drops_is_whole_views_or_lines():
    assert slices(OPERATOR) == 0
    assert slices(Cartesian(SHAPE)) == 1
    assert slices(Identity(SHAPE)) is None
