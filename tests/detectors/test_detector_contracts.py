"""What every baseline detector keeps, on one small problem where all is known.

8x8 images of a smooth Gaussian prior; an odd image is a draw with a bright spot. A new
detector enters `CASES`, and a test says so if it does not.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from klip_jax import detectors, metrics, sde
from klip_jax.detectors import (
    base,
    diffpath,
    klip_release,
    msma,
    noised_reconstruction,
    sinogram_error,
    subset_variance,
)
from klip_jax.operators.ct import ParallelBeam
from klip_jax.priors.analytic import Gaussian

SHAPE, N, NOISE_STD = (8, 8, 1), 30, 0.05
OPERATOR = ParallelBeam(SHAPE, views=8)
STARTS = jnp.float32([0.1, 0.3])
LENGTHS = sde.log_levels(6, 0.02, 1.0)
PATH = sde.log_levels(10, 0.02, 10.0)
CHAIN = jnp.append(sde.log_levels(8, 0.02, 5.0)[::-1], 0)
# Others are no baselines, and have tests of their own.
NOT_HERE = {"__init__", "base", "controls", "klip"}
pytestmark = pytest.mark.usefixtures("compile_fast")


def measure(key, operator, x):
    noise = jax.random.normal(key, operator.out_shape)
    return operator(x) + NOISE_STD * noise


def noised(key, x, prior, operator):
    return noised_reconstruction.errors(key, x, prior, STARTS, steps=3, draws=2)


def sinogram(key, x, prior, operator):
    y = measure(key, operator, x)
    return sinogram_error.errors(key, y, operator, NOISE_STD, prior, STARTS, steps=3)


def subsets(key, x, prior, operator):
    # Whole views would spread the variance along streaks: the place of the spot is then
    # found with .6 instead of .8.
    y = measure(key, operator, x)
    return subset_variance.reconstructions(
        key, y, operator, NOISE_STD, prior, CHAIN, subsets=4, axis=None
    )


def lengths(key, x, prior, operator):
    return msma.features(x, prior, LENGTHS, block=2)


def path(key, x, prior, operator):
    return diffpath.features(x, prior, PATH)


def release(key, x, prior, operator):
    y = measure(key, operator, x)
    return klip_release.maps(key, y, operator, prior, samples=3, steps=25)


def judge_noised(reference, found):
    statistics = base.level_statistics(reference)
    maps = jax.vmap(lambda errors: base.z_score(errors, *statistics))(found)
    return maps.mean((1, 2)), maps


def judge_sinogram(reference, found):
    # By the reconstruction that y guides.
    statistics = base.level_statistics(reference.misfit[:, 1])
    z_score = jax.vmap(lambda errors: base.z_score(errors, *statistics))
    return z_score(found.misfit[:, 1]), found.sinogram[:, 1].sum(1)


def judge_subsets(reference, found):
    return found.variance.mean((1, 2)), found.variance


@jax.jit
def judge_release(reference, found):
    of = functools.partial(klip_release.detection, config="chaos_padis_image")
    detections = jax.vmap(of)(found)
    return detections.score, detections.heatmap


@jax.jit
def judge_lengths(reference, found):
    scores = msma.mahalanobis(msma.fit(reference.image), found.image)
    blocks = msma.mahalanobis(msma.fit(reference.blocks), found.blocks)
    return scores, jnp.kron(blocks, jnp.ones((1, 2, 2)))


def judge_path(reference, found):
    return diffpath.score_1d(diffpath.fit_1d(reference), found), None


class Case(NamedTuple):
    """How a detector is run, one image, and how its results are judged, many.

    Attributes:
      run: (key, x, prior, operator) -> tree of arrays.
      judge: (trees of in-distribution images, of others) -> scores [N], maps or None.
      shapes: of the arrays.
      network_calls: of `run`.
    """

    run: Callable
    judge: Callable
    shapes: tuple
    network_calls: int


CASES = {
    "noised_reconstruction": Case(
        noised,
        judge_noised,
        ((2, 8, 8),),
        noised_reconstruction.network_calls(2, steps=3, draws=2),
    ),
    "sinogram_error": Case(
        sinogram,
        judge_sinogram,
        ((2, 2, 8, 8), (2, 2, 8, 8), (2, 2)),
        sinogram_error.network_calls(2, steps=3),
    ),
    "subset_variance": Case(
        subsets,
        judge_subsets,
        ((8, 8), SHAPE),
        subset_variance.network_calls(8, subsets=4),
    ),
    "klip_release": Case(
        release,
        judge_release,
        ((3, 2, 8, 8), SHAPE),
        klip_release.network_calls(samples=3, steps=25),
    ),
    "msma": Case(lengths, judge_lengths, ((6,), (4, 4, 6)), msma.network_calls(6)),
    "diffpath": Case(path, judge_path, ((6,),), diffpath.network_calls(10)),
}


@pytest.fixture(scope="module")
def images():
    """A smooth prior; [3, N] images, the last N with a spot; and where it is."""
    axis = np.arange(8)
    one = np.exp(-((axis[:, None] - axis) ** 2) / 8) + 0.02 * np.eye(8)
    covariance = jnp.float32(0.04 * np.kron(one, one))
    prior = Gaussian.from_covariance(jnp.full(SHAPE, 0.5), covariance)
    keys = jax.random.split(jax.random.key(0), 3 * N)
    x = jax.jit(jax.vmap(prior.sample))(keys).reshape(3, N, *SHAPE)
    centre = jax.random.uniform(jax.random.key(1), (2, N, 1, 1), minval=1.5, maxval=5.5)
    rows, columns = jnp.ogrid[:8, :8]
    spot = jnp.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2))
    return prior, x.at[2].add(spot[..., None]), np.asarray(spot > 0.4)


@pytest.fixture(scope="module")
def found(images):
    """What a case gives for all images at once: name -> keys, tree of [3, N, ...]."""
    prior, x, _ = images
    keys = jax.random.split(jax.random.key(2), (3, N))

    @functools.cache
    def of(name):
        one = functools.partial(CASES[name].run, prior=prior, operator=OPERATOR)
        return keys, jax.jit(jax.vmap(jax.vmap(one)))(keys, x)

    return of


def test_every_baseline_is_here():
    files = Path(detectors.__file__).parent.glob("*.py")
    assert {f.stem for f in files} - NOT_HERE == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_shapes_and_values(found, name):
    leaves = jax.tree.leaves(found(name)[1])
    for leaf, shape in zip(leaves, CASES[name].shapes, strict=True):
        assert leaf.shape == (3, N, *shape)
        assert leaf.dtype == jnp.float32
        assert bool(jnp.isfinite(leaf).all())


@pytest.mark.parametrize("name", CASES)
def test_odd_images_score_higher_and_their_spots_are_found(images, found, name):
    reference, plain, odd = (part(found(name)[1], i) for i in range(3))
    scores, maps = zip(
        *(CASES[name].judge(reference, tree) for tree in (plain, odd)), strict=True
    )
    # 30 against 30 images: chance is .5 with a standard error of .075.
    labels = np.repeat([False, True], N)
    assert metrics.auroc(np.concatenate(scores), labels) > 0.75
    if maps[0] is not None:
        # Means over 30 images, by chance .5 with a standard error of .04; or more where
        # maps are always brighter in the middle, as those without a spot tell.
        masks = images[2]
        without, of_spots = (
            metrics.localization(np.asarray(m), masks, np.ones_like(masks), 2)
            for m in maps
        )
        assert of_spots > max(0.5, without) + 0.15


@pytest.mark.parametrize("name", CASES)
def test_a_batch_changes_nothing(images, found, name):
    prior, x, _ = images
    keys, batch = found(name)
    one = jax.jit(CASES[name].run)(keys[2, 3], x[2, 3], prior, OPERATOR)
    assert_equal(one, part(batch, (2, 3)))


@pytest.mark.parametrize("name", CASES)
def test_jit_changes_nothing(images, found, name):
    prior, x, _ = images
    keys, batch = found(name)
    one = CASES[name].run(keys[1, 0], x[1, 0], prior, OPERATOR)
    assert_equal(one, part(batch, (1, 0)))


def part(tree, index):
    return jax.tree.map(lambda a: a[index], tree)


def assert_equal(found, expected):
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-5)
    jax.tree.map(close, found, expected)


@pytest.mark.parametrize("name", CASES)
def test_network_calls_are_counted(name):
    calls = []
    run = jax.jit(CASES[name].run)
    jax.block_until_ready(
        run(jax.random.key(0), jnp.ones(SHAPE), tiny.counting(calls), OPERATOR)
    )
    jax.effects_barrier()
    assert len(calls) == CASES[name].network_calls
