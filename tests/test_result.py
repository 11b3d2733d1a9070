"""What `detect` returns: words for people, arrays for programs."""

import base64
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import klip_jax
from klip_jax.calibration import p_value
from klip_jax.detect import _p_value
from klip_jax.detectors.controls import Intensity
from klip_jax.operators.identity import Identity
from klip_jax.operators.mri import Cartesian
from klip_jax.result import Result

SHAPE = (8, 8, 1)
SAMPLER = klip_jax.PosteriorSampler(samples=2, steps=2)
SCANNER = Identity(SHAPE)
BRIGHT = Intensity()  # cheap: no network calls


def denoise(x, sigma):  # white pixels, N(1/2, 1/100)
    return (0.01 * x + 0.5 * sigma**2) / (0.01 + sigma**2)


PRIOR = klip_jax.prior(denoise, lambda sigma: 0.01 * sigma**2 / (0.01 + sigma**2))
SETTINGS = dict(detector=BRIGHT, posterior_sampler=SAMPLER)
RNG = np.random.default_rng(0)
Y = np.float32(0.5 + 0.14 * RNG.standard_normal(SHAPE))


def detect(y=Y, key=0, **more):
    return klip_jax.detect(y, SCANNER, 0.1, PRIOR, key=key, **SETTINGS, **more)


def made(**changes):
    fields = dict(score=2.0, stderr=np.nan, heatmap=None, p_value=0.04, misfit=1.0)
    fields |= dict(reconstruction=np.full(SHAPE, 0.5), spread=np.zeros(SHAPE))
    return Result(**fields | dict(law="9 scores") | changes)


VERDICTS = {
    "flagged": dict(p_value=0.05),
    "borderline": dict(p_value=0.0501),
    "clear": dict(p_value=0.101),
    "no law": dict(p_value=np.nan, law=""),
    "measurement does not fit": dict(misfit=2.01),
    "no finite score": dict(score=np.nan),
}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_verdicts(verdict):
    assert made(**VERDICTS[verdict]).verdict == verdict


def test_misfits_that_say_something():
    assert made(misfit=0.49).verdict == made(misfit=np.nan).verdict
    assert made(misfit=0.5).verdict == made(misfit=2.0).verdict == "flagged"


def test_what_is_returned():
    result = detect(law=np.linspace(0, 1, 19))
    assert result.heatmap.shape == SHAPE[:2] and result.reconstruction.shape == SHAPE
    assert 0.5 < result.misfit < 2 and result.law == "19 scores"
    assert result.p_value == p_value(float(result.score), np.linspace(0, 1, 19))
    row, column = result.peak
    assert result.heatmap[row, column] == result.heatmap.max()
    said = repr(result)
    assert f"verdict: {result.verdict}" in said and "p-value: " in said
    assert "p-value" not in repr(detect()) and np.isnan(detect().p_value)


@pytest.mark.parametrize("law", [[], [1.0, 2.0, 2.0], [np.nan]])
def test_the_p_value_is_that_of_a_run(law):
    law = np.float32(law)
    for score in (0.0, 1.0, 2.0, 9.0, np.nan):
        expected = p_value(score, law)
        np.testing.assert_allclose(_p_value(score, law), expected, rtol=1e-6)


def test_under_vmap_it_is_a_pytree():
    law = np.linspace(0, 1, 9)
    y, keys = np.stack([Y, Y + 0.1]), jax.random.split(jax.random.key(0), 2)
    many = jax.jit(jax.vmap(lambda y, key: detect(y, key, law=law)))(y, keys)
    assert many.score.shape == (2,) and "score=(2,)" in repr(many)
    assert many._repr_html_() is None
    with pytest.raises(ValueError, match=r"results of many, \(2,\)"):
        many.plot()
    one = jax.tree.map(lambda a: a[1], many)
    assert one.law == "9 scores" and one.verdict in VERDICTS
    np.testing.assert_allclose(one.score, detect(y[1], keys[1]).score, rtol=1e-5)


def test_a_notebook_shows_it():
    result = made(heatmap=np.eye(8), reconstruction=np.full(SHAPE, 0.4))
    html = result._repr_html_()
    pictures = re.findall(r"base64,([^']+)'", html)
    image, spread, heatmap = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(p)))) for p in pictures
    )
    assert (image == 102).all() and (spread == 0).all()  # 0.4 of 255
    np.testing.assert_array_equal(heatmap, 255 * np.eye(8))
    assert "flagged" in html and "0.04 (9 scores)" in html
    figure = result.plot()
    assert [ax.get_title() for ax in figure.axes[:2]] == ["reconstruction", "spread"]
    assert "flagged" in figure.get_suptitle()


def test_keys():
    score = detect(key=3).score
    assert score == detect(key=jax.random.key(3)).score
    assert score == detect(key=np.int64(3)).score
    assert score == detect(key=jax.random.PRNGKey(3)).score  # of the old kind
    for wrong in (0.5, "a", None, True):
        with pytest.raises(TypeError, match="or a whole number as its seed"):
            detect(key=wrong)


def test_measurements_of_other_types():
    whole = np.full(SHAPE, 1, np.int64)
    assert detect(whole).score == detect(np.float32(whole)).score
    with pytest.raises(TypeError, match="y is complex, but Identity measures real"):
        detect(Y + 0j)
    with pytest.raises(TypeError, match="y holds object, where measurements are num"):
        detect(np.array([None]))
    mri = Cartesian(SHAPE)
    y = np.full(mri.out_shape, 7.0)
    assert jnp.isfinite(klip_jax.detect(y, mri, 9.0, PRIOR, key=0, **SETTINGS).score)


def test_another_unit_is_named():
    with pytest.warns(UserWarning, match=r"y reaches \d+, where .* image of ones 1: y"):
        result = detect(1000 * Y)
    assert result.verdict == "measurement does not fit"
    with pytest.warns(UserWarning, match="range of the prior$"):
        detect(Y + 1)  # wrong, but of the same size
