"""Parallel-beam CT against analytic sinograms."""

import functools

import ellipses
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators import base_ct, ct, fan
from klip_jax.testing import check_operator


def relative(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("axes", [(50.0, 50.0), (55.0, 40.0)])
def test_projection_of_an_ellipse(axes):
    op = ct.ParallelBeam((128, 128, 1), views=24)
    shape = ((3.3, -5.2), axes, 0.4)
    found = op(jnp.asarray(ellipses.draw(128, *shape)))
    assert relative(found, ellipses.parallel(op, *shape)) <= 3e-3


@pytest.mark.parametrize("pitch", [0.5, 1.0, 1.7])
def test_strip_areas_equal_a_fine_sampling_of_the_pixels(pitch):
    height, width, fine = 4, 5, 400
    op = ct.ParallelBeam((height, width, 1), views=7, span=190.0, pitch=pitch)
    views, detectors = op.out_shape
    x = np.random.default_rng(0).random((height, width))
    grid = (np.arange(fine) + 0.5) / fine - 0.5
    row, column = np.mgrid[:height, :width][..., None, None]
    right = column - (width - 1) / 2 + grid
    up = (height - 1) / 2 - row - grid[:, None]
    value = np.broadcast_to(x[..., None, None], (height, width, fine, fine))
    edges = (np.arange(detectors + 1) - detectors / 2) * pitch
    expected = [
        np.histogram(
            (right * np.cos(t) + up * np.sin(t)).ravel(), edges, weights=value.ravel()
        )[0]
        / (pitch * fine**2)
        for t in np.deg2rad(190.0 / views * np.arange(views))
    ]
    assert relative(op(jnp.asarray(x[..., None], jnp.float32)), expected) <= 5e-3


def test_every_view_sees_the_whole_image():
    op = ct.ParallelBeam((7, 12, 1), views=6, pitch=0.8)
    x = jax.random.uniform(jax.random.key(0), op.in_shape)
    np.testing.assert_allclose(op(x).sum(1) * op.pitch, jnp.sum(x), rtol=1e-5)


def test_detector_that_is_too_small_sees_the_middle():
    full = ct.ParallelBeam((16, 16, 1), views=8, detectors=24)
    small = ct.ParallelBeam((16, 16, 1), views=8, detectors=10)
    x = jax.random.uniform(jax.random.key(0), full.in_shape)
    np.testing.assert_allclose(small(x), full(x)[:, 7:17], rtol=1e-5)


def test_listed_angles_are_views():
    shape = (9, 11, 1)
    x = jax.random.normal(jax.random.key(0), shape)
    op = ct.ParallelBeam(shape, views=4, span=120.0)
    listed = ct.ParallelBeam(shape, angles=[90.0, 0.0, 30.0])
    expected = op(x)[jnp.array([3, 0, 1])]
    np.testing.assert_allclose(listed(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [ct.ParallelBeam, fan.FanBeam])
def test_conventions_of_scanners(kind):
    shape, size = (8, 9, 1), {"views": 6, "detectors": 31}
    x = np.zeros(shape, np.float32)
    x[1:-1, 1:-1] = np.random.default_rng(0).random((6, 7, 1))
    of = lambda image, **settings: np.asarray(  # noqa: E731
        kind(shape, **size, **settings)(jnp.asarray(image))
    )
    same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    y, span = of(x), 180.0 if kind is ct.ParallelBeam else 360.0
    # An axis one pixel to the right and two down: the image is to the left and up.
    moved = np.roll(x, (-1, -1), (0, 1))
    same(of(x, rotation_centre=(1.0, -1.0)), of(moved))
    same(of(x, detector_offset=2.0)[:, 2:], y[:, :-2])
    same(
        of(x, detector_offset=2.0, rotation_centre=(1.0, -1.0))[:, 2:],
        of(moved)[:, :-2],
    )
    # Clockwise is counter-clockwise of the mirror image, seen in a mirror.
    same(of(x, direction=-1), of(x[:, ::-1])[:, ::-1])
    turns = span / 6 * np.arange(6)
    same(of(x, start=10.0, direction=-1), of(x, angles=10 - turns))
    same(of(x, start=10.0, angles=-turns), of(x, angles=10 - turns))
    same(of(x, endpoint=True), of(x, angles=np.linspace(0, span, 6)))


def test_scikit_image_turns_about_the_pixel_of_index_half_n():
    """Its `radon` of a point: column n // 2 is where the axis is, and bin n // 2."""
    n, theta = 8, np.arange(0, 180, 30.0)
    op = ct.ParallelBeam(
        (n, n, 1),
        views=6,
        detectors=n,
        rotation_centre=(0.5, -0.5),
        detector_offset=0.5,
    )
    x = np.zeros((n, n, 1), np.float32)
    x[n // 2, n // 2] = 1
    bins = np.arange(n)
    for row in np.asarray(op(jnp.asarray(x))):
        np.testing.assert_allclose(row @ bins / row.sum(), n // 2, atol=1e-5)
    x = np.roll(x, (-1, 1), (0, 1))  # one up, one to the right: cos + sin
    for t, row in zip(np.deg2rad(theta), np.asarray(op(jnp.asarray(x))), strict=True):
        place = n // 2 + np.cos(t) + np.sin(t)
        np.testing.assert_allclose(row @ bins / row.sum(), place, atol=0.15)


@pytest.mark.parametrize("kind", [ct.ParallelBeam, fan.FanBeam])
def test_filtered_back_projection_knows_the_shift(kind):
    shift = {"rotation_centre": (1.0, -1.0), "detector_offset": 1.0, "direction": -1}
    size = {"views": 24, "detectors": 40, "dense": False}
    x = np.zeros((16, 16, 1), np.float32)
    x[4:11, 5:12] = 1
    plain, moved = kind(x.shape, **size), kind(x.shape, **size, **shift)
    expected = plain.naive_inverse(plain(jnp.asarray(x)))
    np.testing.assert_allclose(
        moved.naive_inverse(moved(jnp.asarray(x))), expected, atol=0.1
    )


def test_rows_of_some_views():
    op = ct.ParallelBeam((5, 6, 1), views=5, dense=False)
    full = ct.ParallelBeam((5, 6, 1), views=5)
    matrix = np.asarray(full.matrix).reshape(5, -1, 30)
    np.testing.assert_allclose(op.rows(2), matrix[::2].reshape(-1, 30), atol=1e-6)


def test_a_millimetre_is_as_good_as_a_pixel():
    shape = (9, 11, 1)
    pixels = ct.ParallelBeam(shape, pitch=1.5, detectors=8)
    millimetres = ct.ParallelBeam(shape, pitch=0.6, detectors=8, pixel_size=0.4)
    x = jax.random.normal(jax.random.key(0), shape)
    np.testing.assert_allclose(millimetres(x), pixels(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"detectors": 9}]
    + [pytest.param(s, marks=pytest.mark.slow) for s in ({}, {"pitch": 0.6})],
)
def test_a_matrix_held_weights_and_computed_weights_agree(monkeypatch, settings):
    shape = (9, 12, 1)
    dense = ct.ParallelBeam(shape, views=8, **settings)
    stored = ct.ParallelBeam(shape, views=8, **settings, dense=False)
    monkeypatch.setattr(base_ct, "STORED_WEIGHTS", 0)
    computed = ct.ParallelBeam(shape, views=8, **settings, dense=False)
    assert dense.exact and stored.stored and not (computed.dense or computed.stored)
    x = jax.random.normal(jax.random.key(0), shape)
    y = jax.random.normal(jax.random.key(1), dense.out_shape)
    for op in (stored, computed):
        assert relative(op(x), dense(x)) <= 1e-5
        assert relative(op.adjoint(y), dense.adjoint(y)) <= 1e-5
        assert relative(op.naive_inverse(y), dense.naive_inverse(y)) <= 1e-5
    iterated = jax.jit(ct.ParallelBeam.solve_gram)(stored, y, 1.0, 9.0)
    assert relative(iterated, dense.solve_gram(y, 1.0, 9.0)) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("weights", [0, 2**26], ids=["computed", "stored"])
def test_large_operators_keep_the_contract(monkeypatch, weights):
    monkeypatch.setattr(base_ct, "STORED_WEIGHTS", weights)
    check_operator(
        ct.ParallelBeam((17, 19, 1), views=5, dense=False), jax.random.key(0)
    )


@pytest.mark.parametrize(("pitch", "span"), [(1.0, 180.0), (0.5, 180.0), (1.0, 360.0)])
def test_filtered_back_projection_returns_a_disc(pitch, span):
    op = ct.ParallelBeam((64, 64, 1), views=180, pitch=pitch, span=span)
    disc = ((2.0, 1.0), (22.0, 22.0), 0.0)
    found = op.naive_inverse(jnp.asarray(ellipses.parallel(op, *disc), jnp.float32))
    inside = ellipses.draw(64, (2.0, 1.0), (19.0, 19.0), 0.0) == 1
    outside = ellipses.draw(64, (2.0, 1.0), (25.0, 25.0), 0.0) == 0
    found = np.asarray(found)
    np.testing.assert_allclose(found[inside], 1.0, atol=0.03)
    np.testing.assert_allclose(found[outside], 0.0, atol=0.03)


@pytest.mark.parametrize(
    ("file", "size", "detectors", "tolerance"),
    [("padis_ct_operator_256.npz", 256, 512, 1e-3), ("padis_64.npz", 64, 128, 3e-3)],
)
def test_geometry_of_padis(shared_data, file, size, detectors, tolerance):
    """Its 24 views, [-20, 20]^2 and detector of 80, made by ODL from line integrals."""
    with np.load(shared_data / "golden" / file) as golden:
        x = golden["img_uint8"].astype(np.float32)[..., None] / 255
        expected = golden["sinogram"].reshape(24, detectors)
    op = ct.ParallelBeam(
        x.shape,
        angles=np.arange(3.75, 180, 7.5) - 90,
        detectors=detectors,
        pitch=80 / detectors,
        pixel_size=40 / size,
        dense=False,  # nothing here is solved
    )
    assert relative(40 / size * op(jnp.asarray(x)), expected) <= tolerance


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((8, 8, 3), {}, "1 channel"),
        ((8, 8, 1), {"views": 0}, "views=0"),
        ((8, 8, 1), {"pitch": -1.0}, "pitch=-1.0"),
        ((8, 8, 1), {"pitch": float("nan")}, "pitch=nan"),
        ((8, 8, 1), {"pixel_size": 0.0}, r"pixel_size=0\.0"),
        ((8, 8, 1), {"detectors": 0}, "detectors=0"),
        ((8, 8, 1), {"detectors": 9.5}, r"detectors=9\.5"),
        ((8, 8, 1), {"views": 2.5}, r"views=2\.5"),
        ((8, 8, 1), {"span": -180.0}, r"span=-180\.0"),
        ((8, 8, 1), {"angles": ()}, r"angles=\(\)"),
        ((8, 8, 1), {"angles": 3}, "angles=3"),
        ((8, 8, 1), {"direction": 0}, "direction=0"),
        ((8, 8, 1), {"start": float("nan")}, "start=nan"),
        ((8, 8, 1), {"views": 1, "endpoint": True}, "at least 2 views"),
        ((8, 8, 1), {"rotation_centre": (1.0,)}, "rotation_centre"),
        ((8, 8, 1), {"detector_offset": float("inf")}, "detector_offset=inf"),
        ((8, 8, 1), {"angles": (0.0, float("inf"))}, "inf"),
    ],
)
def test_wrong_settings_raise(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        ct.ParallelBeam(shape, **settings)
