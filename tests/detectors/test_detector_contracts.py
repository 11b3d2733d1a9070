"""What every detector keeps; a new file of the folder is tested without being named."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import problem
import pytest

from klip_jax import calibration
from klip_jax.types import Detector

CLASSES = problem.classes()
DETECTORS = [n for n, kind in CLASSES.items() if not kind.control]
FIT, LAW, ID, ODD = slice(30), slice(30, 80), slice(80, 130), slice(130, 160)
N = ODD.stop
# Maps that say little of this place, and why.
BLIND = {
    "subset_variance.SubsetVariance": "whole views spread it along streaks",
    "eigenscore.EigenScore": "a Gaussian prior is as certain of every image",
}
GIVEN = {"picture", "scan", "posterior", "classifier", "eligible"}


@pytest.fixture(scope="module")
def images():
    """A prior, N images, where the last ones have spots, and what there is of each."""
    prior = problem.smooth_prior()
    x = jax.vmap(prior.sample)(jax.random.split(jax.random.key(0), N))
    spots = problem.spots(jax.random.key(1), ODD.stop - ODD.start)
    x = x.at[ODD].add(2 * spots[..., None])
    keys = jax.random.split(jax.random.key(2), N)
    given = jax.jit(jax.vmap(problem.measured, (0, 0, None)))(keys, x, prior)
    return prior, given._replace(prior=None), np.asarray(spots > 0.4)


@jax.jit
def look_at_all(detector, keys, given, prior):
    def one(key, given):
        given = problem.only(given._replace(prior=prior), detector.needs)
        return detector.look(key, given)

    return jax.vmap(one)(keys, given)


KEYS = jax.random.split(jax.random.key(3), N)
look = jax.jit(lambda detector, key, given: detector.look(key, given))
measure = jax.jit(problem.measured)
judge = jax.jit(lambda detector, looked: detector.judge(looked))
judge_all = jax.jit(jax.vmap(judge, (None, 0)))
FITTING = [name for name, kind in CLASSES.items() if problem.build(kind).fits]


@pytest.fixture(scope="module")
def seen(images):
    """name -> detector, fitted where it fits; what it looked at; its detections."""
    prior, given, _ = images

    @functools.cache
    def of(name):
        detector = problem.build(CLASSES[name])
        looked = look_at_all(detector, KEYS, given, prior)
        fitted = detector.fit(part(looked, FIT))
        return fitted, looked, judge_all(fitted, looked)

    return of


@pytest.mark.parametrize("name", CLASSES)
def test_it_is_a_detector(name):
    detector = problem.build(CLASSES[name])
    assert isinstance(detector, Detector)
    assert set(detector.needs) <= GIVEN
    assert isinstance(detector.fits, bool) and isinstance(detector.control, bool)
    assert isinstance(detector.network_calls, int)
    assert detector.unseen_factor({}) == 1
    assert jax.tree.structure(detector).num_leaves >= 0
    hash(jax.tree.structure(detector))  # static settings let jit tell programs apart


@pytest.mark.parametrize("name", CLASSES)
def test_shapes_and_values(seen, name):
    detector, looked, detections = seen(name)
    for leaf in jax.tree.leaves((looked, detections.score, detections.heatmap)):
        assert leaf.dtype == jnp.float32
        assert bool(jnp.isfinite(leaf).all())
    assert detections.score.shape == detections.stderr.shape == (N,)
    assert not np.any(np.asarray(detections.stderr) < 0)
    if detections.heatmap is not None:
        assert detections.heatmap.shape == (N, *problem.SHAPE[:2])
        assert problem.SHAPE[0] % detector.block == 0
    for name, extra in detector.extras(part(looked, 0)).items():
        assert isinstance(name, str) and bool(jnp.isfinite(extra).all())


@pytest.mark.parametrize("name", CLASSES)
def test_one_image_alone_is_seen_as_in_a_batch(images, seen, name):
    prior, given, _ = images
    detector, looked, detections = seen(name)
    alone = problem.only(part(given, 7)._replace(prior=prior), detector.needs)
    one = look(detector, KEYS[7], alone)
    assert_equal(one, part(looked, 7))
    # Judged with jit, without, and in the batch.
    assert_equal(judge(detector, one), part(detections, 7))
    assert_equal(detector.judge(one), part(detections, 7))


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_jit_changes_nothing(images, seen, name):
    prior, given, _ = images
    detector, looked, _ = seen(name)
    alone = problem.only(part(given, 3)._replace(prior=prior), detector.needs)
    assert_equal(detector.look(KEYS[3], alone), part(looked, 3))


@pytest.mark.parametrize("name", DETECTORS)
def test_odd_images_score_higher(seen, name):
    if name == "eigenscore.EigenScore":
        pytest.skip(BLIND[name])
    *_, detections = seen(name)
    plain, odd = (np.asarray(detections.score)[s] for s in (ID, ODD))
    # 50 against 30 images: chance is .5 with a standard error of .07.
    assert np.mean(odd[:, None] > plain) > 0.75


@pytest.mark.parametrize("name", DETECTORS)
def test_spots_are_found(images, seen, name):
    maps = seen(name)[2].heatmap
    if maps is None or name in BLIND:
        pytest.skip(BLIND.get(name, "it has no map"))
    # Means over 30 images, by chance .5 with a standard error of .04; or more where
    # maps are always brighter in the middle, as those without a spot tell.
    masks, maps = images[2], np.asarray(maps)
    found = np.mean([inside(m, k) for m, k in zip(maps[ODD], masks, strict=True)])
    without = np.mean([inside(m, k) for m, k in zip(maps[ID], masks, strict=False)])
    assert found > max(0.5, without) + 0.1


@pytest.mark.parametrize("name", CLASSES)
def test_p_values_are_uniform_under_its_own_law(seen, name):
    scores = np.asarray(seen(name)[2].score)
    p = calibration.p_value(scores[ID], scores[LAW])
    n, m = len(p), LAW.stop - LAW.start
    # The 1 per mille point of the statistic for two samples, and the grid of p.
    assert distance_from_uniform(p) < 1.95 * np.sqrt(1 / n + 1 / m) + 1 / (m + 1)


@pytest.mark.parametrize("name", CLASSES)
def test_images_never_seen_give_numbers(images, seen, name):
    prior, detector = images[0], seen(name)[0]
    for image in (jnp.zeros(problem.SHAPE), jnp.full(problem.SHAPE, -30.0)):
        strange = measure(jax.random.key(4), image, prior)
        strange = problem.only(strange, detector.needs)
        detection = judge(detector, look(detector, KEYS[0], strange))
        assert bool(jnp.isfinite(detection.score))


@pytest.mark.parametrize("name", CLASSES)
def test_what_failed_is_not_a_number(images, seen, name):
    if name == "controls.Random":
        pytest.skip("it looks at nothing")
    prior, given, _ = images
    detector = seen(name)[0]
    broken = jax.tree.map(lambda a: a * jnp.nan, part(given, 0)._replace(eligible=None))
    broken = broken._replace(scan=broken.scan._replace(operator=problem.OPERATOR))
    broken = problem.only(broken._replace(prior=prior), detector.needs)
    detection = judge(detector, look(detector, KEYS[0], broken))
    assert bool(jnp.isnan(detection.score))


@pytest.mark.filterwarnings("ignore")  # scikit-learn: fewer clusters than wanted
@pytest.mark.parametrize("name", FITTING)
def test_a_detector_that_fits(seen, name):
    looked = seen(name)[1]
    unfitted = problem.build(CLASSES[name])
    with pytest.raises(ValueError, match=r"judges only after fit"):
        unfitted.judge(part(looked, 0))
    # Images that are all alike have no spread, and still give numbers.
    same = jax.tree.map(lambda a: jnp.broadcast_to(a[:1], (30, *a.shape[1:])), looked)
    constant = unfitted.fit(same)
    for i in (0, 1, ODD.stop - 1):
        detection = judge(constant, part(looked, i))
        for leaf in jax.tree.leaves((detection.score, detection.heatmap)):
            assert bool(jnp.isfinite(leaf).all())


@pytest.mark.parametrize(
    "name",
    # KLIP's are counted in test_klip.py.
    [pytest.param(n, marks=[pytest.mark.slow] * (n == "klip.KLIP")) for n in CLASSES],
)
def test_network_calls_are_counted(images, name):
    _, given, _ = images
    detector, calls = problem.build(CLASSES[name]), []
    given = part(given, 0)._replace(prior=problem.counting(calls))
    looked = look(detector, KEYS[0], problem.only(given, detector.needs))
    jax.block_until_ready(looked)
    jax.effects_barrier()
    # Those of a detector that may stop early are the most that it can take.
    taken = detector.extras(looked).get("calls", detector.network_calls)
    assert len(calls) == taken <= detector.network_calls


def part(tree, index):
    return jax.tree.map(lambda a: a[index], tree)


def assert_equal(found, expected):
    def close(a, b):
        # Maps of z-scores and of differences go through 0.
        atol = 1e-3 * float(jnp.nanmax(jnp.abs(b))) if jnp.isfinite(b).any() else 0.0
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=atol)

    jax.tree.map(close, found, expected)


def inside(heatmap, mask):
    """Return the chance that a pixel of the spot is above another one, ties half."""
    difference = heatmap[mask][:, None] - heatmap[~mask]
    return np.mean((difference > 0) + 0.5 * (difference == 0))


def distance_from_uniform(p):
    """Return the Kolmogorov-Smirnov statistic of p-values."""
    p, n = np.sort(p), len(p)
    return np.maximum(np.arange(1, n + 1) / n - p, p - np.arange(n) / n).max()
