import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import calibration
from klip_jax.blocks import block_sum
from klip_jax.detectors.combined import RULES, Combined
from klip_jax.detectors.controls import Gradient, Intensity, PosteriorSpread
from klip_jax.detectors.diffpath import DiffPath1D
from klip_jax.detectors.klip import KLIP, Looked
from klip_jax.detectors.msma import MSMA
from klip_jax.types import Given

PARTS = dict(rough=Gradient(block=1), bright=Intensity(block=1, top_share=0.0))
M = 50
judge = jax.jit(lambda detector, looked: detector.judge(looked))


@pytest.fixture(scope="module")
def looked():
    """What the parts see of M images of noise; the score is the brightest pixel."""
    images = jax.random.normal(jax.random.key(0), (M, 4, 4, 1))
    return jax.vmap(look)(images)


def look(image):
    return Combined(PARTS).look(jax.random.key(1), Given(None, image=image))


def scores(looked):
    return {
        name: np.asarray(jax.vmap(part.judge)(looked[name]).score)
        for name, part in PARTS.items()
    }


def test_each_rule_is_what_it_says(looked):
    laws, one = scores(looked), jax.tree.map(lambda a: a[7], looked)
    own = {name: law[7] for name, law in laws.items()}
    p = np.array([calibration.p_value(own[name], laws[name]) for name in PARTS])
    z = [(own[n] - laws[n].mean()) / laws[n].std(ddof=1) for n in PARTS]
    expected = {
        "fisher": -np.log(p).sum(),
        "min_p": -np.log(p.min()),
        "mean_z": np.mean(z),
    }
    assert expected.keys() == RULES.keys()
    for rule, value in expected.items():
        found = judge(Combined(PARTS, rule=rule).fit(looked), one)
        np.testing.assert_allclose(found.score, value, rtol=1e-4, atol=1e-5)
        assert np.isnan(found.stderr)


def test_maps_are_standardised_and_added(looked):
    one = jax.tree.map(lambda a: a[3], looked)
    expected = sum(
        (np.asarray(one[name]) - np.mean(a)) / np.std(a, ddof=1)
        for name, a in looked.items()
    )
    found = judge(Combined(PARTS).fit(looked), one).heatmap
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_beyond_all_draws_the_stronger_is_above(looked, rule):
    detector = Combined(PARTS, rule=rule).fit(looked)
    found = [
        float(judge(detector, look(jnp.zeros((4, 4, 1)).at[1, 2].set(height))).score)
        for height in (3.0, 10.0, 20.0, 40.0)
    ]
    assert found == sorted(found) and len(set(found)) == 4


def test_what_failed_is_no_evidence(looked):
    detector = Combined(PARTS).fit(looked)
    one = jax.tree.map(lambda a: a[0], looked)
    assert np.isnan(judge(detector, one | {"rough": one["rough"] * jnp.nan}).score)


def test_parts_that_fit_see_the_first_half_only():
    draws = jax.random.gamma(jax.random.key(2), 3.0, (M, 10))
    parts = dict(bright=PARTS["bright"], msma=MSMA())
    looked = dict(bright=jax.random.normal(jax.random.key(3), (M, 4, 4)), msma=draws)
    fitted = Combined(parts).fit(looked)
    alone = MSMA().fit(draws[: M // 2])
    np.testing.assert_array_equal(fitted.detectors["msma"].law.mean, alone.law.mean)
    expected = np.sort(jax.vmap(alone.judge)(draws[M // 2 :]).score)
    np.testing.assert_allclose(fitted.laws["msma"].scores, expected, rtol=1e-5)
    assert len(fitted.laws["bright"].scores) == M - M // 2
    # A part without a map adds none.
    one = jax.tree.map(lambda a: a[0], looked)
    usual = fitted.laws["bright"].pixel
    heatmap = (one["bright"] - usual.mean) / usual.std
    np.testing.assert_allclose(judge(fitted, one).heatmap, heatmap, rtol=1e-5)


def test_parts_are_corrected_each_for_what_the_prior_has_seen():
    """Of images that err 1.3 times more the fused score is that of draws."""
    record = dict(errors=dict(levels=[0.01, 1.0], train=[1.0, 1.0], test=[1.3, 1.3]))
    detector = Combined(dict(klip=KLIP(), bright=PARTS["bright"]))
    maps = jax.random.uniform(jax.random.key(4), (2, M + 1, 8, 8))
    left_out = jnp.stack([block_sum(maps[0], 4)] * 3, 1)
    klip = Looked(maps[0], left_out, jnp.ones((M + 1, 6, 3)))
    looked = dict(klip=klip, bright=maps[1])
    draws, one = (
        jax.tree.map(lambda a, cut=cut: a[cut], looked) for cut in (slice(M), M)
    )
    unseen = detector.unseen(draws, record)
    np.testing.assert_array_equal(unseen["bright"], draws["bright"])
    errs_more = one | dict(klip=jax.tree.map(lambda a: 1.3 * a, one["klip"]))
    plain, corrected = detector.fit(draws), detector.fit(unseen)
    expected = float(judge(plain, one).score)
    assert float(judge(corrected, errs_more).score) == pytest.approx(expected, rel=1e-5)
    assert judge(plain, errs_more).score > expected + 1


def test_without_maps_there_is_none():
    detector = Combined(dict(one=MSMA(), path=DiffPath1D()))
    looked = dict(one=jnp.ones((M, 10)), path=jnp.ones((M, 6)))
    looked = jax.tree.map(lambda a: a * jnp.linspace(1, 2, M)[:, None], looked)
    one = jax.tree.map(lambda a: a[0], looked)
    assert judge(detector.fit(looked), one).heatmap is None
    assert detector.network_calls == 20 and detector.fits


def test_needs_and_settings():
    detector = Combined(dict(a=PosteriorSpread(), b=Intensity(), c=Gradient()))
    assert detector.needs == ("posterior", "picture") and detector.network_calls == 0
    with pytest.raises(ValueError, match=r"detectors=\['a'\]: need at least two"):
        Combined(dict(a=Intensity()))
    with pytest.raises(ValueError, match="rule='vote': choose one of"):
        Combined(PARTS, rule="vote")
