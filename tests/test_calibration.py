import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import calibration
from klip_jax.detectors import klip
from klip_jax.kl import top_mean
from klip_jax.operators.identity import Identity
from klip_jax.priors.analytic import Gaussian

SHAPE = (8, 8, 1)
NOISE_STD = 0.1
pytestmark = pytest.mark.usefixtures("compile_fast")
SETTINGS = klip.Settings(
    samples=3, steps=8, levels=3, block=2, scale=1.0, top=0.1, window=(0.05, 0.5)
)


def smooth_prior(mean=0.5):
    """A Gaussian over 8x8 images, correlated over two pixels."""
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(64, 2)
    gap = ((grid[:, None] - grid) ** 2).sum(-1)
    covariance = 0.02 * np.exp(-gap / 8) + 1e-3 * np.eye(64)
    return Gaussian.from_covariance(jnp.full(SHAPE, mean), jnp.float32(covariance))


def law_of(scores):
    maps = np.random.default_rng(0).normal(3, 2, (len(scores), 4, 4))
    return calibration.ReferenceLaw(np.float32(scores), np.float32(maps), "print")


def test_p_values_count():
    law = np.arange(1.0, 10.0)
    assert calibration.p_value(99.0, law) == 1 / 10
    assert calibration.p_value(9.0, law) == 2 / 10  # equal counts
    assert calibration.p_value(5.5, law) == 5 / 10
    assert calibration.p_value(-1.0, law) == 1
    assert np.isnan(calibration.p_value(np.nan, law))
    assert calibration.p_value(0.0, law[:0]) == 1  # nothing to compare with


def test_positions_are_fitted_on_one_half_and_scores_come_from_the_other():
    law = law_of(np.arange(9.0))
    mean, spread = calibration.position_law(law)
    first, second = law.block_maps[:4], law.block_maps[4:]
    np.testing.assert_allclose(mean, first.mean(0), rtol=1e-6)
    np.testing.assert_allclose(spread, first.std(0, ddof=1), rtol=1e-6)
    assert calibration.score_law(law, 0.2, None) is law.scores
    scores = calibration.score_law(law, 0.2, (mean, spread))
    expected = [top_mean((m - mean) / spread, 0.2) for m in second]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert scores.shape == (5,)
    # The half that is compared with cannot move the fit.
    law.block_maps[4:] += 100
    np.testing.assert_array_equal(calibration.position_law(law)[0], mean)


def test_the_error_ratio_is_of_the_window_alone():
    levels = [0.01, 0.1, 1.0]
    errors = dict(levels=levels, train=[1e-4, 1e-2, 1.0], test=[1e-4, 2e-2, 8.0])
    ratio = calibration.error_ratio
    # Both errors over s^2 are lines in ln s once their logarithm is taken: test / train
    # is 1, 2, 8 at the levels, 2^u and 2 * 4^u in between, whose means are known.
    first, second = 1 / np.log(2), 6 / np.log(4)
    assert ratio({"errors": errors}, (0.01, 0.1)) == pytest.approx(first, rel=1e-2)
    assert ratio({"errors": errors}, (0.1, 1.0)) == pytest.approx(second, rel=1e-2)
    assert ratio({"errors": errors | {"test": errors["train"]}}, (0.02, 0.3)) == 1
    assert ratio({}, (0.02, 0.3)) == 1
    assert ratio({"errors": {"levels": levels, "errors": [1, 1, 1]}}, (0.1, 1)) == 1
    for wrong in ([1e-4, 0.0, 1.0], [1e-4, np.nan, 1.0], [1e-4, -1.0, 1.0]):
        with pytest.raises(ValueError, match="positive numbers"):
            ratio({"errors": errors | {"test": wrong}}, (0.02, 0.3))


def test_a_scaled_law_flags_less():
    law = law_of(np.arange(1.0, 20.0))
    wider = calibration.scaled(law, 1.5)
    np.testing.assert_array_equal(wider.scores, 1.5 * law.scores)
    np.testing.assert_array_equal(wider.block_maps, 1.5 * law.block_maps)
    assert calibration.p_value(19.5, law.scores) == 1 / 20
    assert calibration.p_value(19.5, wider.scores) == 8 / 20


def test_a_law_survives_the_disk(tmp_path):
    law = law_of([3.0, 1.0, 2.0])
    assert calibration.load_law(tmp_path / "law.npz") is None
    calibration.save_law(tmp_path / "law.npz", law)
    found = calibration.load_law(tmp_path / "law.npz")
    np.testing.assert_array_equal(found.scores, law.scores)
    np.testing.assert_array_equal(found.block_maps, law.block_maps)
    assert found.fingerprint == "print"


@pytest.mark.parametrize("keep", [0, 30, 0.5, -1])
def test_a_truncated_law_is_named(tmp_path, keep):
    path = tmp_path / "law.npz"
    calibration.save_law(path, law_of(np.arange(50.0)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.5 * len(whole)) if keep == 0.5 else keep])
    with pytest.raises(
        ValueError, match=r"law\.npz: not a whole reference law .*delete"
    ):
        calibration.load_law(path)


def test_another_file_is_no_law(tmp_path):
    for name, arrays in (("a", dict(scores=np.ones(3))), ("b", dict(fingerprint=3))):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(ValueError, match="not a whole reference law"):
            calibration.load_law(tmp_path / f"{name}.npz")


def test_fingerprints_tell_everything_apart():
    params = {"a": jnp.arange(3.0), "b": {"c": jnp.ones((2, 2))}}
    plain = dict(noise_std=0.1, window=(0.04, 0.4))
    first = calibration.fingerprint(params, plain)
    assert len(first) == 64
    json_like = dict(window=[0.04, 0.4], noise_std=0.1)
    assert calibration.fingerprint(params, json_like) == first
    others = [
        (params | {"a": jnp.arange(3.0) + 1e-6}, plain),
        (params | {"a": jnp.arange(3.0)[:, None]}, plain),
        (params | {"a": jnp.arange(3.0).astype(jnp.float16)}, plain),
        ({"a": params["a"], "d": params["b"]}, plain),
        (params, plain | dict(noise_std=0.2)),
        (params, plain | dict(seed=0)),
    ]
    prints = {calibration.fingerprint(*other) for other in others}
    assert len(prints) == len(others) and first not in prints


@jax.jit(static_argnames="steps")
def draw(prior, operator, keys, steps):
    def one(key):
        return calibration.prior_predictive(
            key, operator, NOISE_STD, prior, steps=steps
        )

    return jax.vmap(one)(keys)


def test_draws_of_the_model_have_its_moments():
    prior, operator = smooth_prior(), Identity(SHAPE)
    variance = np.diag(prior.covariance)
    keys = jax.random.split(jax.random.key(0), n := 4000)
    x, y = (np.asarray(a, np.float64) for a in draw(prior, operator, keys, 25))
    error = (x.mean(0).ravel() - 0.5) / np.sqrt(variance / n)
    assert np.abs(error).max() < 4.5
    assert abs((y - x).std() / NOISE_STD - 1) < 4 / np.sqrt(2 * x.size)
    # By ancestral sampling 0.13 were missing.
    assert abs(1 - (x.var(0).ravel() / variance).mean()) < 0.03


@pytest.fixture(scope="module")
def scores():
    """Scores of the law's draws, of exact draws, and of these with a bright spot."""
    prior, operator = smooth_prior(), Identity(SHAPE)

    @jax.jit
    def score(prior, operator, keys, x):
        def one(key, x):
            key_noise, key = jax.random.split(key)
            y = operator(x) + NOISE_STD * jax.random.normal(key_noise, x.shape)
            found = klip.estimate(key, y, operator, NOISE_STD, prior, SETTINGS)
            return klip.detection(found.levels, SETTINGS).score

        return jax.vmap(one)(keys, x)

    def keys(seed, n=200):
        return jax.random.split(jax.random.key(seed), n)

    predicted, _ = draw(prior, operator, keys(0), 200)
    exact = jax.vmap(prior.sample)(keys(1))
    rows, columns = jnp.ogrid[:8, :8]
    spot = jnp.exp(-((rows - 3) ** 2 + (columns - 4) ** 2) / 2)
    anomalous = exact + spot[..., None]
    return [
        np.asarray(score(prior, operator, keys(seed), x))
        for seed, x in ((2, predicted), (3, exact), (4, anomalous))
    ]


def distance_from_uniform(p):
    """Return the Kolmogorov-Smirnov statistic of p-values."""
    p, n = np.sort(p), len(p)
    return np.maximum(np.arange(1, n + 1) / n - p, p - np.arange(n) / n).max()


def test_p_values_are_uniform_when_the_model_is_right(scores):
    law, right, wrong = scores
    p = [calibration.p_value(s, law) for s in right]
    n, m = len(right), len(law)
    # The 1 % point of the statistic for two samples, and the grid of the p-values.
    limit = 1.63 * np.sqrt(1 / n + 1 / m) + 1 / (m + 1)
    assert distance_from_uniform(p) < limit
    false_alarms = np.mean(np.array(p) <= 0.05)
    assert abs(false_alarms - 0.05) < 3 * np.sqrt(0.05 * 0.95 * (1 / n + 1 / m))
    # The test has the power to see that an image does not belong.
    p = [calibration.p_value(s, law) for s in wrong]
    assert distance_from_uniform(p) > 2 * limit
    assert np.mean(np.array(p) <= 0.05) > 0.5
