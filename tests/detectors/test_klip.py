import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from klip_jax import Detection, Settings, detect, kl
from klip_jax.detectors import klip
from klip_jax.operators.ct import ParallelBeam
from klip_jax.operators.identity import Identity
from klip_jax.operators.mri import Cartesian
from klip_jax.priors.analytic import Gaussian
from klip_jax.samplers.resampling import resampling

SHAPE = (16, 16, 1)
NOISE_STD = 0.2
SETTINGS = Settings(samples=3, steps=8, levels=3, top=0.1, map="coherent", emphasis=1.0)
pytestmark = pytest.mark.usefixtures("compile_fast")


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


@pytest.fixture(scope="module")
def detections(scans):
    prior, operator, measured = scans
    return [
        detect(y, operator, NOISE_STD, prior, key=jax.random.key(i), settings=SETTINGS)
        for i, y in enumerate(measured)
    ]


def test_a_detection(detections):
    for found in detections:
        assert isinstance(found, Detection)
        assert found.score.shape == found.stderr.shape == ()
        assert found.heatmap.shape == SHAPE[:2]
        assert all(bool(jnp.isfinite(a).all()) for a in found)
        assert found.stderr > 0
        top = np.sort(np.asarray(kl.block_sum(found.heatmap, 4)).ravel())[-2:]
        np.testing.assert_allclose(found.score, top.mean(), rtol=1e-4)


def test_an_anomaly_scores_higher_and_is_found(detections):
    for plain, anomalous in zip(detections[:2], detections[2:], strict=True):
        gap = anomalous.score - plain.score
        assert gap > 5 * jnp.hypot(plain.stderr, anomalous.stderr)
        assert anomalous.score > 1.5 * plain.score
        blocks = kl.block_sum(anomalous.heatmap, 4)
        assert np.unravel_index(blocks.argmax(), blocks.shape) == (1, 2)


def test_equal_keys_give_equal_results(scans, detections):
    prior, operator, measured = scans
    again = detect(
        np.asarray(measured[0]),
        operator,
        NOISE_STD,
        prior,
        key=jax.random.key(0),
        settings=SETTINGS,
    )
    jax.tree.map(np.testing.assert_array_equal, again, detections[0])
    settings = dict(key=jax.random.key(9), settings=SETTINGS)
    other = detect(measured[0], operator, NOISE_STD, prior, **settings)
    assert other.score != detections[0].score
    # Chance moves the score by about its standard error.
    gap = abs(other.score - detections[0].score)
    assert gap < 5 * jnp.hypot(other.stderr, detections[0].stderr)


def test_a_batch_changes_nothing(scans, detections):
    prior, operator, measured = scans

    @jax.jit
    def batch(prior, operator, keys, measured):
        def one(key, y):
            found = klip.estimate(key, y, operator, NOISE_STD, prior, SETTINGS)
            return klip.detection(found.levels, SETTINGS)

        return jax.vmap(one)(keys, measured)

    keys = jax.vmap(jax.random.key)(jnp.arange(4))
    order = jnp.array([2, 0, 3, 1])
    found = batch(prior, operator, keys[order], measured[order])
    for i, n in enumerate(order):
        for a, b in zip(found, detections[n], strict=True):
            np.testing.assert_allclose(a[i], b, rtol=5e-3, atol=1e-3)


def test_network_calls_are_counted():
    calls = []
    settings = Settings(samples=3, steps=2, levels=2, block=2, emphasis=0.0)
    shape = (4, 4, 1)
    estimate = jax.jit(klip.estimate, static_argnums=5)
    y = jnp.ones(shape)
    found = estimate(
        jax.random.key(0), y, Identity(shape), 0.1, tiny.counting(calls), settings
    )
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert len(calls) == settings.network_calls == 3 * (2 + 2 * 2)


@pytest.mark.parametrize("scanner", [Identity, Cartesian])
def test_the_misfit_is_1_under_the_model(scanner):
    """Exactly, as the sampler is exact for a white prior."""
    prior = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(256), jnp.full(256, 0.01))
    operator = scanner(SHAPE)

    def one(key, noise_std):
        key_x, key_noise, key = jax.random.split(key, 3)
        y = operator(prior.sample(key_x))
        y = y + noise_std * jax.random.normal(key_noise, y.shape)
        settings = SETTINGS._replace(inflation=1.0)
        return klip.estimate(key, y, operator, 0.1, prior, settings).misfit

    one = jax.jit(jax.vmap(one, (0, None)))
    keys = jax.random.split(jax.random.key(0), 32)
    right = one(keys, 0.1)
    stderr = right.std() / np.sqrt(len(keys))
    assert abs(right.mean() - 1) < 4 * stderr < 0.1
    assert one(keys, 0.3).mean() > 2


def test_the_first_bad_step_is_reported(monkeypatch):
    prior = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(256), jnp.full(256, 0.01))
    plain = resampling()

    def step(key, x, denoiser, likelihood, sigma, sigma_next):
        x, info = plain.step(key, x, denoiser, likelihood, sigma, sigma_next)
        return jnp.where(sigma < 0.5, jnp.nan, x), info

    monkeypatch.setattr(klip, "resampling", lambda: plain._replace(step=step))
    estimate = jax.jit(klip.estimate, static_argnums=5)
    y = jnp.ones(SHAPE)
    found = estimate(jax.random.key(0), y, Identity(SHAPE), 0.1, prior, SETTINGS)
    sigmas = np.geomspace(SETTINGS.sigma_max, SETTINGS.sigma_min, SETTINGS.steps)
    assert int(found.first_bad_step) == int(np.argmax(sigmas < 0.5))


def test_standardised_by_position(scans, detections):
    prior, operator, measured = scans
    estimate = jax.jit(klip.estimate, static_argnums=5)
    found = estimate(
        jax.random.key(0), measured[0], operator, NOISE_STD, prior, SETTINGS
    )
    plain = klip.detection(found.levels, SETTINGS)
    mean, spread = jnp.full((4, 4), 2.0), jnp.full((4, 4), 0.5)
    z = klip.detection(found.levels, SETTINGS, (mean, spread))
    np.testing.assert_allclose(z.score, (plain.score - 2) / 0.5, rtol=1e-3)
    np.testing.assert_allclose(z.stderr, plain.stderr / 0.5, rtol=1e-3)
    blocks = (kl.block_sum(plain.heatmap, 4) - 2) / 0.5
    np.testing.assert_allclose(z.heatmap[::4, ::4], blocks, rtol=1e-3, atol=1e-4)


def test_each_map_can_be_chosen(scans):
    prior, operator, measured = scans
    levels = jax.jit(klip.estimate, static_argnums=5)(
        jax.random.key(0), measured[2], operator, NOISE_STD, prior, SETTINGS
    ).levels
    scores = {}
    for i, name in enumerate(kl.MAPS):
        settings = SETTINGS._replace(map=name)
        found = klip.detection(levels, settings)
        np.testing.assert_array_equal(found.heatmap, levels.heatmap[i])
        scores[name] = float(found.score)
    assert len(set(scores.values())) == len(kl.MAPS)


BAD = {
    "shape": (dict(y=np.zeros((12, 7))), r"y has shape \(12, 7\), but ParallelBeam"),
    "nan": (dict(y=np.nan), "y holds values that are NaN"),
    "noise": (dict(noise_std=0.0), "noise_std=0.0: must be positive"),
    "negative noise": (dict(noise_std=-1.0), "noise_std=-1.0: must be positive"),
    "block": (dict(settings=Settings(block=3)), "block=3 does not divide a 16x16"),
    "window": (dict(settings=Settings(window=(0.1, 99.0))), "window=.*sigma_max"),
    "samples": (dict(settings=Settings(samples=2)), "samples=2: need at least 3"),
    "map": (dict(settings=Settings(map="all")), "map='all': choose one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_speak(scans, case):
    prior, operator, measured = scans
    changes, words = BAD[case]
    arguments = dict(y=measured[0], noise_std=NOISE_STD, settings=SETTINGS) | changes
    if np.ndim(arguments["y"]) == 0:
        arguments["y"] = measured[0].at[3, 4].set(arguments["y"])
    with pytest.raises(ValueError, match=words):
        detect(operator=operator, prior=prior, key=jax.random.key(0), **arguments)
