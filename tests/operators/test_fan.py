"""Fan-beam CT against analytic sinograms, parallel beams and exact wedges."""

import ellipses
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators import base_ct, ct, fan
from klip_jax.testing import check_operator


def relative(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("distances", [(100.0, 0.0), (192.0, 96.0)])
def test_projection_of_an_ellipse(distances):
    source, detector = distances
    op = fan.FanBeam((128, 128, 1), source_distance=source, detector_distance=detector)
    shape = ((3.3, -5.2), (55.0, 40.0), 0.4)
    found = op(jnp.asarray(ellipses.draw(128, *shape)))
    assert relative(found, ellipses.fan(op, *shape)) <= 5e-3


def test_a_pixel_near_the_source_has_the_shadow_of_a_square():
    op = fan.FanBeam(
        (9, 9, 1),
        angles=[70.0],
        source_distance=12.0,
        detector_distance=20.0,
        pitch=0.5,
        detectors=160,
    )
    x = np.zeros(op.in_shape, np.float32)
    x[4, 0] = 1  # at (-4, 0): 8 pixels from the source
    fine = (np.arange(800) + 0.5) / 800 - 0.5
    u, v = np.meshgrid(fine - 4, fine)
    t = np.deg2rad(70.0)
    lateral, depth = u * np.cos(t) + v * np.sin(t), 12 - u * np.sin(t) + v * np.cos(t)
    # A line through the source at fan angle g crosses the width d tau of the detector
    # in a strip of width depth cos(g) d tau / 32.
    weight = 32 / depth * np.hypot(lateral, depth) / depth
    edges = (np.arange(161) - 80) * 0.5
    total = np.histogram((32 * lateral / depth).ravel(), edges, weights=weight.ravel())
    expected = total[0] / (0.5 * fine.size**2)
    assert relative(op(jnp.asarray(x))[0], expected) <= 1e-2
    np.testing.assert_allclose(op(jnp.asarray(x)).sum(), expected.sum(), rtol=5e-3)


def test_a_far_source_makes_parallel_beams():
    shape = (16, 19, 1)
    x = jax.random.normal(jax.random.key(0), shape)
    parallel = ct.ParallelBeam(shape, views=9, span=360.0, detectors=25)
    far = fan.FanBeam(
        shape, views=9, detectors=25, source_distance=1e6, detector_distance=10.0
    )
    assert relative(far(x), parallel(x)) <= 1e-4


def test_opposite_views_of_one_line_agree():
    op = fan.FanBeam((12, 12, 1), views=2, span=360.0, detectors=31)
    x = jax.random.uniform(jax.random.key(0), op.in_shape)
    middle = op(x)[:, 15]
    np.testing.assert_allclose(middle[0], middle[1], rtol=1e-2)


@pytest.mark.parametrize(
    "settings",
    [{"detectors": 9}]
    + [pytest.param(s, marks=pytest.mark.slow) for s in ({}, {"pitch": 0.6})],
)
def test_a_matrix_held_weights_and_computed_weights_agree(monkeypatch, settings):
    shape = (9, 12, 1)
    dense = fan.FanBeam(shape, views=8, **settings)
    stored = fan.FanBeam(shape, views=8, **settings, dense=False)
    monkeypatch.setattr(base_ct, "STORED_WEIGHTS", 0)
    computed = fan.FanBeam(shape, views=8, **settings, dense=False)
    x = jax.random.normal(jax.random.key(0), shape)
    y = jax.random.normal(jax.random.key(1), dense.out_shape)
    for op in (stored, computed):
        assert relative(op(x), dense(x)) <= 1e-5
        assert relative(op.adjoint(y), dense.adjoint(y)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("weights", [0, 2**26], ids=["computed", "stored"])
def test_large_operators_keep_the_contract(monkeypatch, weights):
    monkeypatch.setattr(base_ct, "STORED_WEIGHTS", weights)
    check_operator(fan.FanBeam((17, 19, 1), views=5, dense=False), jax.random.key(0))


def test_a_millimetre_is_as_good_as_a_pixel():
    shape = (9, 11, 1)
    lengths = dict(source_distance=20.0, detector_distance=5.0, pitch=1.5)
    pixels = fan.FanBeam(shape, views=5, detectors=12, **lengths)
    lengths = {name: 0.4 * value for name, value in lengths.items()}
    millimetres = fan.FanBeam(shape, views=5, detectors=12, pixel_size=0.4, **lengths)
    x = jax.random.normal(jax.random.key(0), shape)
    np.testing.assert_allclose(millimetres(x), pixels(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("span", "pitch"), [(360.0, 1.5), (360.0, 0.8), (210.0, 1.5), (270.0, 1.5)]
)
def test_filtered_back_projection_returns_a_disc(span, pitch):
    op = fan.FanBeam((64, 64, 1), views=240, span=span, pitch=pitch)
    disc = ((2.0, 1.0), (22.0, 22.0), 0.0)
    y = jnp.asarray(ellipses.fan(op, *disc, samples=16), jnp.float32)
    found = np.asarray(jax.jit(fan.FanBeam.naive_inverse)(op, y))
    inside = ellipses.draw(64, (2.0, 1.0), (19.0, 19.0), 0.0) == 1
    outside = ellipses.draw(64, (2.0, 1.0), (25.0, 25.0), 0.0) == 0
    np.testing.assert_allclose(found[inside], 1.0, atol=0.04)
    np.testing.assert_allclose(found[outside], 0.0, atol=0.04)


@pytest.mark.parametrize("span", [210.0, 250.0, 300.0])
def test_parker_weights_count_every_line_once(span):
    half_fan, views = np.deg2rad(14.0), 3000
    for g in np.deg2rad([-13.0, -5.0, 0.0, 9.0]):
        here, there = fan._parker(span, views, np.array([g, -g]), half_fan).T
        step = np.deg2rad(span) / views
        # The line of (t, g) is seen again at t + pi - 2 g, with -g.
        shift = round((np.pi - 2 * g) / step)
        both = here[: views - shift] + there[shift:]
        np.testing.assert_allclose(both, 1.0, atol=5e-3)


def test_agrees_with_astra():
    astra = pytest.importorskip("astra", reason="astra-toolbox is not installed")
    op = fan.FanBeam((128, 128, 1), views=24)
    x = ellipses.draw(128, (3.3, -5.2), (55.0, 40.0), 0.4)
    distances = (op.source, op.magnified - op.source)
    angles = np.deg2rad(op.angles)
    beams = ("fanflat", op.pitch, op.out_shape[1], angles, *distances)
    volume = astra.create_vol_geom(128, 128)
    projector = astra.create_projector(
        "line_fanflat", astra.create_proj_geom(*beams), volume
    )
    _, y = astra.create_sino(x[..., 0], projector)
    assert relative(op(jnp.asarray(x)), y) <= 1e-2


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((8, 8, 3), {}, "1 channel"),
        ((8, 8, 1), {"views": 0}, "views=0"),
        ((8, 8, 1), {"span": 0.0}, r"span=0\.0"),
        ((8, 8, 1), {"pitch": -1.0}, r"pitch=-1\.0"),
        ((8, 8, 1), {"detectors": 0}, "detectors=0"),
        ((8, 8, 1), {"angles": ()}, r"angles=\(\)"),
        ((8, 8, 1), {"source_distance": 5.0}, r"source_distance=5\.0.*5\.65"),
        ((8, 8, 1), {"source_distance": float("nan")}, "source_distance=nan"),
        ((8, 8, 1), {"detector_distance": -1.0}, r"detector_distance=-1\.0"),
        ((8, 8, 1), {"pixel_size": float("inf")}, "pixel_size=inf"),
    ],
)
def test_wrong_settings_raise(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        fan.FanBeam(shape, **settings)
