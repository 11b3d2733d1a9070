"""KLIP as a detector: against the estimators it is made of, and on bright spots."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import klip_jax
from klip_jax import (
    KLIP,
    Detection,
    Given,
    Posterior,
    PosteriorSampler,
    Scan,
    kl,
    struct,
)
from klip_jax.blocks import block_sum
from klip_jax.detectors.base import Detector
from klip_jax.detectors.klip import Looked
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.operators.ct import ParallelBeam
from klip_jax.operators.identity import Identity
from klip_jax.priors.analytic import Gaussian
from klip_jax.scan import simulate

SHAPE, NOISE_STD = (16, 16, 1), 0.2
DETECTOR = KLIP(level_count=3, top_share=0.1, map="coherent", filter_weight=1.0)
SAMPLER = PosteriorSampler(samples=3, steps=8)


def smooth_prior():
    """A Gaussian over 16x16 images, correlated over three pixels."""
    axis = np.arange(16)
    one = np.exp(-((axis[:, None] - axis) ** 2) / 18) + 0.02 * np.eye(16)
    covariance = jnp.float32(0.01 * np.kron(one, one))
    return Gaussian.from_covariance(jnp.full(SHAPE, 0.5), covariance)


@pytest.fixture(scope="module")
def scans():
    """Two draws of the prior and the same with a bright spot, measured."""
    prior, operator = smooth_prior(), ParallelBeam(SHAPE, views=12)
    x = jax.vmap(prior.sample)(jax.random.split(jax.random.key(0), 2))
    rows, columns = jnp.ogrid[:16, :16]
    spot = 0.6 * jnp.exp(-((rows - 5) ** 2 + (columns - 10) ** 2) / 4.5)
    x = jnp.concatenate([x, x + spot[..., None]])
    noise = jax.random.normal(jax.random.key(1), (4, *operator.out_shape))
    return prior, operator, jax.vmap(operator)(x) + NOISE_STD * noise


def detect(y, operator, prior, **changes):
    settings = dict(detector=DETECTOR, posterior_sampler=SAMPLER) | changes
    return klip_jax.detect(y, operator, NOISE_STD, prior, **settings)


@pytest.fixture(scope="module")
def detections(scans):
    prior, operator, measured = scans
    return [
        detect(y, operator, prior, key=jax.random.key(i))
        for i, y in enumerate(measured)
    ]


@pytest.fixture(scope="module")
def looked(scans):
    """What is seen of the first and of the third scan."""
    prior, operator, measured = scans

    @jax.jit
    def look(key, y):
        scan = Scan(operator, y, NOISE_STD)
        return DETECTOR.look(key, Given(prior, scan, SAMPLER(key, scan, prior)))

    return [look(jax.random.key(0), measured[i]) for i in (0, 2)]


def test_a_detection(detections):
    for detection in detections:
        assert isinstance(detection, klip_jax.Result)
        assert detection.score.shape == detection.stderr.shape == ()
        assert detection.heatmap.shape == SHAPE[:2]
        leaves = jax.tree.leaves(detection.replace(p_value=jnp.float32(1)))
        assert all(bool(jnp.isfinite(a).all()) for a in leaves)
        assert detection.stderr > 0
        top = np.sort(np.asarray(block_sum(detection.heatmap, 4)).ravel())[-2:]
        np.testing.assert_allclose(detection.score, top.mean(), rtol=1e-4)


def test_an_anomaly_scores_higher_and_is_seen_in_its_place(detections):
    for plain, anomalous in zip(detections[:2], detections[2:], strict=True):
        gap = anomalous.score - plain.score
        assert gap > 5 * jnp.hypot(plain.stderr, anomalous.stderr)
        assert anomalous.score > 1.5 * plain.score
        blocks = block_sum(anomalous.heatmap, 4)
        assert np.unravel_index(blocks.argmax(), blocks.shape) == (1, 2)


def test_equal_keys_give_equal_results(scans, detections):
    prior, operator, measured = scans
    y = np.asarray(measured[0])
    again = detect(y, operator, prior, key=jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, again, detections[0])
    other = detect(y, operator, prior, key=jax.random.key(9))
    assert other.score != detections[0].score
    # Chance moves the score by about its standard error.
    gap = abs(other.score - detections[0].score)
    assert gap < 5 * jnp.hypot(other.stderr, detections[0].stderr)


def test_the_look_is_that_of_levels_kl(scans):
    prior, operator, measured = scans
    key, scan = jax.random.key(0), Scan(operator, measured[0], NOISE_STD)
    samples = jax.vmap(prior.sample)(jax.random.split(key, 3))

    @jax.jit
    def both(scan, samples):
        posterior = Posterior(samples, *4 * (None,))
        looked = DETECTOR.look(key, Given(prior, scan, posterior))
        given = prior, ConditionalGaussian(3.0), scan, samples, DETECTOR.levels
        filters = dict(filter_width=2.0, filter_weight=1.0, pool_width=3.0)
        return looked, kl.levels_kl(key, *given, block=4, **filters)

    looked, maps = both(scan, samples)
    index = kl.MAPS.index(DETECTOR.map)
    detection, extras = DETECTOR.judge(looked), DETECTOR.extras(looked)

    def agree(actual, expected):
        # Where signed terms nearly cancel, what is left is rounding of the largest.
        largest = float(abs(expected).max())
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6 * largest)

    agree(detection.heatmap, maps.heatmap[index])
    score = np.sort(np.asarray(maps.block_map[index]).ravel())[-2:].mean()
    np.testing.assert_allclose(detection.score, score, rtol=1e-5)
    np.testing.assert_allclose(extras["levels"], np.geomspace(0.02, 0.8, 3), rtol=1e-5)
    density = maps.blocks.sum((-2, -1))
    agree(extras["density"], density)
    assert len(DETECTOR.curves) == density.shape[1]


def test_jit_and_vmap_equal_the_loop_and_compile_once(scans, x64):
    """Over three windows and three widths, in one program each.

    In float64; in float32 the two orders of summation differ by 2e-6 of the largest.
    """
    prior, operator, measured = jax.tree.map(lambda a: a.astype(float), scans)
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    traces = []

    def one(detector, key, y, prior, operator):
        traces.append(1)
        return detector(key, Scan(operator, y, NOISE_STD), prior, SAMPLER)

    single, batch = jax.jit(one), jax.jit(jax.vmap(one, (None, 0, 0, None, None)))
    scores = set()
    for window in ((0.02, 0.8), (0.05, 0.8), (0.05, 2.0)):
        for width in (0.0, 1.0, 2.0):
            detector = DETECTOR.replace(window=window, filter_width=width)
            together = batch(detector, keys, measured, prior, operator)
            for i in range(4):
                alone = single(detector, keys[i], measured[i], prior, operator)
                for a, b in zip(together, alone, strict=True):
                    scale = float(jnp.abs(b).max())
                    np.testing.assert_allclose(a[i], b, rtol=1e-6, atol=1e-6 * scale)
            scores.add(float(together.score[0]))
    assert len(traces) == 2 and len(scores) == 9
    assert single._cache_size() == batch._cache_size() == 1


def test_detect_works_under_jit_and_vmap(scans, detections):
    prior, operator, measured = scans
    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    one = lambda y, key: detect(y, operator, prior, key=key)  # noqa: E731
    together = jax.jit(jax.vmap(one))(measured, keys)
    for i, expected in enumerate(detections):
        for a, b in zip(*map(jax.tree.leaves, (together, expected)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=5e-3, atol=1e-3)


def test_network_calls_are_counted():
    calls, shape = [], (4, 4, 1)
    detector = KLIP(level_count=2, block=2)
    sampler = PosteriorSampler(samples=3, steps=2)
    scan = Scan(Identity(shape), jnp.ones(shape), 0.1)
    score = jax.jit(detector)(jax.random.key(0), scan, tiny.counting(calls), sampler)
    jax.block_until_ready(score)
    jax.effects_barrier()
    assert len(calls) == detector.calls(3) + sampler.network_calls == 3 * (2 * 2 + 2)
    assert detector.network_calls == detector.calls(PosteriorSampler().samples)


def test_standardised_by_position(looked):
    many = jax.tree.map(lambda a, b: jnp.stack([a, b, a + 1]), *looked)
    detector = DETECTOR.replace(per_position=True)
    assert detector.fits and not DETECTOR.fits and DETECTOR.fit(many) is DETECTOR
    fitted, block_maps = detector.fit(many), np.asarray(many.left_out.mean(1))
    np.testing.assert_allclose(fitted.law.mean, block_maps.mean(0), rtol=1e-5)
    np.testing.assert_allclose(fitted.law.std, block_maps.std(0, ddof=1), rtol=1e-4)
    z = fitted.judge(looked[1])
    blocks = (block_maps[1] - block_maps.mean(0)) / block_maps.std(0, ddof=1)
    np.testing.assert_allclose(z.heatmap[::4, ::4], blocks, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(z.score, np.sort(blocks.ravel())[-2:].mean(), rtol=1e-3)
    with pytest.raises(ValueError, match="KLIP judges only after fit"):
        detector.judge(looked[0])


def test_each_map_can_be_chosen(scans):
    prior, operator, measured = scans
    scores = {
        name: float(
            detect(
                measured[2],
                operator,
                prior,
                key=jax.random.key(0),
                detector=DETECTOR.replace(map=name),
            ).score
        )
        for name in kl.MAPS
    }
    assert len(set(scores.values())) == len(kl.MAPS)


def test_the_law_of_unseen_images():
    record = dict(errors=dict(levels=[0.01, 1.0], train=[1.0, 1.0], test=[1.3, 1.3]))
    assert DETECTOR.unseen_factor(record) == pytest.approx(1.3)
    assert DETECTOR.unseen_factor({}) == 1
    # A z-score is no square of errors: what it is made of is multiplied instead.
    detector = DETECTOR.replace(per_position=True)
    assert detector.unseen_factor(record) == 1
    draws = kl_looks(jax.random.key(0), 40)
    fitted, plain = detector.fit(detector.unseen(draws, record)), detector.fit(draws)
    healthy = kl_looks(jax.random.key(1), 1)
    healthy, errs_more = (
        jax.tree.map(lambda a, f=f: f * a[0], healthy) for f in (1.0, 1.3)
    )
    one, other = fitted.judge(errs_more), plain.judge(healthy)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), one, other)
    assert plain.judge(errs_more).score > 1.5 * one.score
    unknown = detector.unseen(draws, {})
    jax.tree.map(np.testing.assert_array_equal, unknown, draws)


def kl_looks(key, count):
    """Return what KLIP may see of `count` images, whose blocks differ by chance."""
    left_out = 1 + 0.1 * jax.random.normal(key, (count, 5, 2, 3))
    heatmap = jnp.kron(left_out.mean(1), jnp.ones((4, 4)))
    return Looked(heatmap, left_out, jnp.ones((count, 2, 3)))


def test_a_noise_std_for_each_measurement(scans, detections):
    """Equal ones change nothing but the solver, which then iterates."""
    prior, operator, measured = scans
    noise_std = np.full(operator.out_shape, NOISE_STD)
    settings = dict(detector=DETECTOR, posterior_sampler=SAMPLER)
    key = jax.random.key(2)
    detection = klip_jax.detect(
        measured[2], operator, noise_std, prior, key=key, **settings
    )
    gap = abs(detection.score - detections[2].score)
    assert gap < 0.05 * detections[2].score


def test_a_large_misfit_is_warned_of(scans):
    prior, operator, measured = scans
    with pytest.warns(UserWarning, match="miss the measurements by .* times"):
        klip_jax.detect(
            *(measured[0], operator, 0.01, prior),
            key=jax.random.key(0),
            detector=DETECTOR,
            posterior_sampler=SAMPLER.replace(sigma_min=1.0),
        )


@struct.dataclass
class Broken(Detector):
    """Score or map are not finite.

    Attributes:
      score, pixel: what it gives.
    """

    score: float = 0.0
    pixel: float = 0.0

    def look(self, key, given):
        return given.posterior.mean[..., 0]

    def judge(self, looked):
        heatmap = looked.at[0, 0].set(self.pixel)
        return Detection(jnp.asarray(self.score), jnp.float32(0), heatmap)


def test_a_detector_that_breaks_is_warned_of():
    shape = (4, 4, 1)
    white = Gaussian.from_covariance(jnp.full(shape, 0.5), 0.01 * jnp.eye(16))
    sampler = PosteriorSampler(samples=1, steps=2)
    given = jnp.full(shape, 0.5), Identity(shape), 0.5, white
    settings = dict(key=jax.random.key(0), posterior_sampler=sampler)
    for spoiled in (dict(score=jnp.nan), dict(score=jnp.inf), dict(pixel=jnp.nan)):
        with pytest.warns(UserWarning, match="Broken gives no finite score and map"):
            klip_jax.detect(*given, detector=Broken(**spoiled), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        klip_jax.detect(*given, detector=Broken(), **settings)


BAD = {
    "shape": (dict(y=np.zeros((12, 7))), r"y has shape \(12, 7\), but ParallelBeam"),
    "nan": (dict(y=np.nan), "y holds values that are NaN"),
    "noise": (dict(noise_std=0.0), r"noise_std=0\.0: must be positive"),
    "negative noise": (dict(noise_std=-1.0), r"noise_std=-1\.0: must be positive"),
    "noise shape": (dict(noise_std=np.ones(3)), r"noise_std has shape \(3,\): give"),
    "block": (dict(detector=KLIP(block=3)), "block=3 does not divide a 16x16"),
    "samples": (
        dict(posterior_sampler=PosteriorSampler(samples=2, steps=2)),
        "2 samples: the jackknife needs at least 3",
    ),
    "operator": (
        dict(operator=lambda x: x),
        "<lambda> has no adjoint and no solve_gra",
    ),
    "class": (dict(operator=Identity), "Identity is no operator: give an object"),
    "prior": (dict(prior=3.0), "a float does not denoise"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_speak(scans, case):
    prior, operator, measured = scans
    changes, words = BAD[case]
    arguments = dict(y=measured[0], operator=operator, noise_std=0.2, prior=prior)
    arguments |= dict(detector=DETECTOR, posterior_sampler=SAMPLER) | changes
    if np.ndim(arguments["y"]) == 0:
        arguments["y"] = measured[0].at[3, 4].set(arguments["y"])
    with pytest.raises((ValueError, TypeError), match=words):
        klip_jax.detect(key=jax.random.key(0), **arguments)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(window=(0.8, 0.02)), "window=.*: must increase"),
        (dict(window=(0.0, 0.02)), "window=.*: must be positive"),
        (dict(window=(0.1,)), r"window=\(0.1,\): give \(lowest, highest\)"),
        (dict(level_count=1), "level_count=1: must be an integer >= 2"),
        (dict(chunk=4), "chunk=4: must divide level_count=6"),
        (dict(map="all"), "map='all': choose one of"),
        (dict(filter_weight=1.5), r"filter_weight=1\.5: must be in \[0, 1\]"),
        (dict(filter_width=-1.0), "filter_width=-1.0"),
        (dict(filter_width=1e6), r"filter_width=1000000\.0: must be in \[0, 256\]"),
        (dict(pool_width=float("inf")), "pool_width=inf"),
        (dict(pool_width=float("nan")), "pool_width=nan"),
        (dict(top_share=1.0), r"top_share=1\.0: a share in \[0, 1\)"),
        (dict(block=0), "block=0: must be an integer >= 1"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        KLIP(**settings)


@pytest.mark.slow
def test_a_plain_function_and_a_prior_that_knows_classes(scans):
    prior, operator, measured = scans

    class Classes:
        def given(self, label):
            assert label is None
            return prior

    function = klip_jax.prior(lambda x, sigma: prior(x, sigma), prior.variance)
    scan = Scan(operator, measured[0], NOISE_STD)
    key = jax.random.key(0)
    scores = [
        DETECTOR(key, scan, given, SAMPLER).score
        for given in (prior, function, Classes())
    ]
    np.testing.assert_allclose(scores, scores[0], rtol=1e-3)
    assert simulate(key, operator, prior.mean, 0.1).y.shape == operator.out_shape
