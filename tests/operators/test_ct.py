"""Parallel-beam CT against analytic sinograms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators import ct


def ellipse(size, centre, axes, tilt, samples=8):
    """Draw an anti-aliased ellipse of value 1 [size, size, 1], in pixel lengths."""
    right = (np.arange(size * samples) + 0.5) / samples - size / 2
    u, v = np.meshgrid(right - centre[0], -right - centre[1])
    along = u * np.cos(tilt) + v * np.sin(tilt)
    across = v * np.cos(tilt) - u * np.sin(tilt)
    inside = (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1
    pixels = inside.reshape(size, samples, size, samples).mean((1, 3))
    return jnp.asarray(pixels[..., None], jnp.float32)


def ellipse_sinogram(op, centre, axes, tilt):
    """Integrate the chord lengths of an ellipse of value 1 over each detector bin."""
    views, detectors = op.out_shape
    angle = np.deg2rad(op.span / views * np.arange(views))[:, None]
    edges = (np.arange(detectors + 1) - detectors / 2) * op.pitch
    half = np.hypot(axes[0] * np.cos(angle - tilt), axes[1] * np.sin(angle - tilt))
    t = (edges - centre[0] * np.cos(angle) - centre[1] * np.sin(angle)) / half
    t = np.clip(t, -1, 1)
    area_below = axes[0] * axes[1] * (t * np.sqrt(1 - t**2) + np.arcsin(t))
    return np.diff(area_below, axis=1) / op.pitch


def relative(found, expected):
    return np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("axes", [(50.0, 50.0), (55.0, 40.0)])
def test_projection_of_an_ellipse(axes):
    op = ct.ParallelBeam((128, 128, 1), views=24)
    shape = ((3.3, -5.2), axes, 0.4)
    found = op(ellipse(128, *shape))
    assert relative(found, ellipse_sinogram(op, *shape)) <= 3e-3


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
    op = ct.ParallelBeam((17, 30, 1), views=12, pitch=0.8)
    x = jax.random.uniform(jax.random.key(0), op.in_shape)
    np.testing.assert_allclose(op(x).sum(1) * op.pitch, jnp.sum(x), rtol=1e-5)


def test_detector_that_is_too_small_sees_the_middle():
    full = ct.ParallelBeam((16, 16, 1), views=8, detectors=24)
    small = ct.ParallelBeam((16, 16, 1), views=8, detectors=10)
    x = jax.random.uniform(jax.random.key(0), full.in_shape)
    np.testing.assert_allclose(small(x), full(x)[:, 7:17], rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"pitch": 0.6}, {"detectors": 9}])
def test_scattered_and_dense_representations_agree(monkeypatch, settings):
    shape = (17, 19, 1)
    dense = ct.ParallelBeam(shape, **settings)
    monkeypatch.setattr(ct, "DENSE_ENTRIES", 0)
    large = ct.ParallelBeam(shape, **settings)
    assert dense.exact and not large.dense
    x = jax.random.normal(jax.random.key(0), shape)
    y = jax.random.normal(jax.random.key(1), dense.out_shape)
    assert relative(large(x), dense(x)) <= 1e-5
    assert relative(large.adjoint(y), dense.adjoint(y)) <= 1e-5
    assert relative(large.naive_inverse(y), dense.naive_inverse(y)) <= 1e-5
    iterated = jax.jit(ct.ParallelBeam.solve_gram)(large, y, 1.0, 9.0)
    assert relative(iterated, dense.solve_gram(y, 1.0, 9.0)) <= 1e-4


@pytest.mark.parametrize(("pitch", "span"), [(1.0, 180.0), (0.5, 180.0), (1.0, 360.0)])
def test_filtered_back_projection_returns_a_disc(pitch, span):
    op = ct.ParallelBeam((64, 64, 1), views=180, pitch=pitch, span=span)
    disc = ((2.0, 1.0), (22.0, 22.0), 0.0)
    found = op.naive_inverse(jnp.asarray(ellipse_sinogram(op, *disc), jnp.float32))
    inside = np.asarray(ellipse(64, (2.0, 1.0), (19.0, 19.0), 0.0)) == 1
    outside = np.asarray(ellipse(64, (2.0, 1.0), (25.0, 25.0), 0.0)) == 0
    found = np.asarray(found)
    np.testing.assert_allclose(found[inside], 1.0, atol=0.03)
    np.testing.assert_allclose(found[outside], 0.0, atol=0.03)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((8, 8, 3), {}, "1 channel"),
        ((8, 8, 1), {"views": 0}, "views=0"),
        ((8, 8, 1), {"pitch": -1.0}, "pitch=-1.0"),
        ((8, 8, 1), {"detectors": 0}, "detectors=0"),
    ],
)
def test_wrong_settings_raise(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        ct.ParallelBeam(shape, **settings)
