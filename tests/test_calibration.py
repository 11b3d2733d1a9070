import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import calibration, prior_predictive, reference_law
from klip_jax.calibration import conformal_p_value, p_value
from klip_jax.operators.identity import Identity
from klip_jax.priors.analytic import Gaussian
from klip_jax.reference_law import Law, load_law, save_law

SHAPE = (8, 8, 1)
NOISE_STD = 0.1


def smooth_prior(mean=0.5):
    """A Gaussian over 8x8 images, correlated over two pixels."""
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8)), -1).reshape(64, 2)
    gap = ((grid[:, None] - grid) ** 2).sum(-1)
    covariance = 0.02 * np.exp(-gap / 8) + 1e-3 * np.eye(64)
    return Gaussian.from_covariance(jnp.full(SHAPE, mean), jnp.float32(covariance))


def law_of(**scores):
    scores = {name: np.float32(values) for name, values in scores.items()}
    return Law(scores, {name: f"print of {name}" for name in scores})


def test_p_values_count():
    law = np.arange(1.0, 10.0)
    for score, expected in ((99.0, 1), (9.0, 2), (5.5, 5), (1.0, 10), (-1.0, 10)):
        assert p_value(score, law) == expected / 10  # equal ones count
        assert conformal_p_value(score, law) == expected / 10
    assert p_value(2.0, law[:1]) == 1 / 2  # one draw is a law, if a poor one
    many = p_value(np.array([[99.0, 9.0], [5.5, -1.0]]), law[::-1])
    np.testing.assert_array_equal(many, [[0.1, 0.2], [0.5, 1.0]])


def test_what_failed_is_never_significant():
    law = np.arange(1.0, 10.0)
    assert np.isnan(p_value(np.nan, law)) and np.isnan(p_value(np.inf, law))
    assert np.isnan(p_value(99.0, law[:0]))  # nothing to compare with
    for broken in (np.full(9, np.nan), np.append(law, np.nan), np.append(law, np.inf)):
        assert np.isnan(p_value(np.array([99.0, 1.0]), broken)).all()
        assert np.isnan(conformal_p_value(99.0, broken))


def test_conformal_p_values_are_valid():
    # Exchangeable scores of any law: P(p <= a) <= a, and nearly equal for a grid of a.
    scores = np.random.default_rng(0).lognormal(size=(4000, 20))
    p = np.array([conformal_p_value(s[0], s[1:]) for s in scores])
    for alpha in (0.05, 0.1, 0.5):
        stderr = np.sqrt(alpha * (1 - alpha) / len(p))
        assert abs(np.mean(p <= alpha + 1e-9) - alpha) < 4 * stderr


def test_healthy_images_count_before_draws():
    p, none = np.array([0.5, np.nan]), np.full(2, np.nan)
    first = calibration.first_law
    assert first(dict(p_value=p, p_conformal=p)) == "p_conformal"
    assert (
        first(dict(p_value=p, p_conformal=none)) == first(dict(p_value=p)) == "p_value"
    )
    assert first(dict(p_value=none)) == first({}) == ""


def test_the_distance_from_uniform():
    # F jumps by 1/4 at each: F(p) - p is largest at 0.2, p - F(p) before 0.9.
    found = calibration.departure(np.array([0.9, 0.1, 0.2, 0.6]))
    assert found == pytest.approx((0.5 - 0.2, 0.9 - 0.75)) and found.ks == found.low
    assert calibration.departure(np.ones(7)) == (0, 1)
    # The limit is what chance exceeds once in a hundred, with a law of few scores too.
    rng, n, m, runs = np.random.default_rng(1), 60, 99, 4000
    scores, laws = rng.normal(size=(runs, n)), rng.normal(size=(runs, m))
    pairs = zip(scores, laws, strict=True)
    ks = [calibration.departure(p_value(s, law)).ks for s, law in pairs]
    assert np.mean(np.array(ks) > calibration.by_chance(n, m)) == pytest.approx(
        0.01, abs=0.006
    )


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
    easier = errors | {"test": [1e-4, 5e-3, 0.5]}  # by chance, or another set
    assert ratio({"errors": easier}, (0.02, 0.3)) == 1
    assert ratio({}, (0.02, 0.3)) == ratio({"errors": None}, (0.02, 0.3)) == 1
    assert ratio({"errors": {"levels": levels, "errors": [1, 1, 1]}}, (0.1, 1)) == 1
    for wrong in ([1e-4, 0.0, 1.0], [1e-4, np.nan, 1.0], [1e-4, -1.0, 1.0]):
        with pytest.raises(ValueError, match="positive numbers"):
            ratio({"errors": errors | {"test": wrong}}, (0.02, 0.3))
    with pytest.raises(ValueError, match="one error a level"):
        ratio({"errors": errors | {"test": [1.0, 2.0]}}, (0.02, 0.3))


def test_a_law_survives_the_disk(tmp_path):
    law = law_of(klip=[3.0, 1.0, 2.0], **{"block msma/../ü": [5.0, 6.0]})
    save_law(tmp_path / "law.npz", law)
    found = load_law(tmp_path / "law.npz")
    assert list(found.scores) == list(law.scores)
    assert found.fingerprints == law.fingerprints
    for name, scores in law.scores.items():
        np.testing.assert_array_equal(found.scores[name], scores)


def test_a_law_keeps_healthy_images_beside_draws(tmp_path):
    law = dataclasses.replace(
        law_of(klip=[3.0, 1.0]),
        healthy={"random": np.float32([5.0, 6.0, 7.0])},
        healthy_fingerprints={"random": "print"},
        patients=2,
    )
    save_law(tmp_path / "law.npz", law)
    found = load_law(tmp_path / "law.npz")
    assert found.patients == 2 and found.healthy_fingerprints == {"random": "print"}
    np.testing.assert_array_equal(found.healthy["random"], [5, 6, 7])
    np.testing.assert_array_equal(found.scores["klip"], [3, 1])
    with pytest.raises(ValueError, match=r"1 of 2 scores of 'klip' are NaN"):
        nan = {"klip": np.float32([1, np.nan])}
        dataclasses.replace(law, healthy=nan, healthy_fingerprints={"klip": ""})
    with pytest.raises(ValueError, match=r"of \['random'\] are missing"):
        dataclasses.replace(law, healthy_fingerprints={})


@pytest.mark.parametrize("wrong", [[np.nan] * 3, [1, np.nan, 2], [1, np.inf, 2]])
def test_a_law_is_finite_or_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"of 3 scores of 'msma' are NaN or infinite"):
        law_of(klip=[1.0, 2.0], msma=wrong)
    # Also where a file was made otherwise.
    path = tmp_path / "law.npz"
    save_law(path, law_of(klip=[1.0, 2.0], msma=[1.0, 2.0, 3.0]))
    with np.load(path) as arrays:
        np.savez(path, **dict(arrays) | {"scores_1": np.float32(wrong)})
    with pytest.raises(ValueError, match=r"law\.npz: .* of 3 scores of 'msma' are NaN"):
        load_law(path)


def test_a_law_is_a_row_of_numbers_with_a_fingerprint():
    for scores in (np.zeros((2, 2)), np.zeros(0), np.array([1, 2]), np.array(["a"])):
        with pytest.raises(ValueError, match=r"'klip' are .* must be a row"):
            Law({"klip": scores}, {"klip": ""})
    with pytest.raises(ValueError, match=r"of \['klip'\] are missing"):
        Law({"klip": np.zeros(2)}, {})


@pytest.mark.parametrize("keep", [0, 30, 0.5, -1])
def test_a_truncated_law_is_named(tmp_path, keep):
    path = tmp_path / "law.npz"
    save_law(path, law_of(klip=np.arange(50.0)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.5 * len(whole)) if keep == 0.5 else keep])
    with pytest.raises(
        ValueError, match=r"law\.npz: not a whole reference law .*delete"
    ):
        load_law(path)


def test_another_file_is_no_law(tmp_path):
    objects = np.array([{}], object)
    files = dict(a=dict(scores=np.ones(3)), b=dict(names=objects, fingerprints=objects))
    for name, arrays in files.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(ValueError, match="not a whole reference law"):
            load_law(tmp_path / f"{name}.npz")
    with pytest.raises(ValueError, match=r"c\.npz: there is no such law"):
        load_law(tmp_path / "c.npz")


def test_a_law_larger_than_any_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "law.npz"
    save_law(path, law_of(klip=np.zeros(5000)))  # 80 times smaller on disk
    load_law(path)
    monkeypatch.setattr(reference_law, "_LARGEST", 20_000)
    with pytest.raises(ValueError, match=r"law\.npz: .*it would take 2\d{4} bytes"):
        load_law(path)


def test_fingerprints_tell_everything_apart():
    params = {"a": jnp.arange(3.0), "b": {"c": jnp.ones((2, 2))}}
    plain = dict(noise_std=0.1, window=(0.04, 0.4))
    first = reference_law.fingerprint(params, plain)
    assert len(first) == 64
    json_like = dict(window=[0.04, 0.4], noise_std=0.1)
    assert reference_law.fingerprint(params, json_like) == first
    others = [
        (params | {"a": jnp.arange(3.0) + 1e-6}, plain),
        (params | {"a": jnp.arange(3.0)[:, None]}, plain),
        (params | {"a": jnp.arange(3.0).astype(jnp.float16)}, plain),
        ({"a": params["a"], "d": params["b"]}, plain),
        (params, plain | dict(noise_std=0.2)),
        (params, plain | dict(seed=0)),
    ]
    prints = {reference_law.fingerprint(*other) for other in others}
    assert len(prints) == len(others) and first not in prints


def test_draws_of_the_model_have_its_moments():
    prior, operator, n = smooth_prior(), Identity(SHAPE), 4000

    @jax.jit
    def draw(prior, operator, keys):
        one = prior_predictive.prior_predictive
        return jax.vmap(lambda key: one(key, operator, NOISE_STD, prior))(keys)

    x, scan = draw(prior, operator, jax.random.split(jax.random.key(0), n))
    x, y = (np.asarray(a, np.float64) for a in (x, scan.y))
    variance = np.diag(prior.covariance)
    error = (x.mean(0).ravel() - 0.5) / np.sqrt(variance / n)
    assert np.abs(error).max() < 4.5
    assert abs((y - x).std() / NOISE_STD - 1) < 4 / np.sqrt(2 * x.size)
    # By ancestral sampling 0.13 were missing.
    assert abs(1 - (x.var(0).ravel() / variance).mean()) < 0.03
