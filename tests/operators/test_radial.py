import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators.radial import RadialLines


@pytest.mark.parametrize("contested", ["measured", "last"])
@pytest.mark.parametrize(
    "shape", [(12, 9, 1), pytest.param((16, 16, 1), marks=pytest.mark.slow)]
)
def test_the_convolution_is_the_operator_twice(shape, contested):
    op = RadialLines(shape, views=5, lines=16, contested=contested)
    x = jax.random.normal(jax.random.key(0), shape)
    np.testing.assert_allclose(op.normal(x), op.adjoint(op(x)), atol=1e-6)


def test_one_view_is_the_spectrum_of_the_projection():
    # At angle 0 the line is the axis of the columns: that of sums along the rows.
    op = RadialLines((8, 8, 1), views=1, lines=8)
    x = jax.random.normal(jax.random.key(0), op.in_shape)
    profile = np.fft.fft(np.pad(np.asarray(x)[..., 0].sum(0), (0, op.side - 8)))
    expected = np.abs(profile[op.columns]) / op.side
    expected[1:] *= 2**0.5
    np.testing.assert_allclose(np.linalg.norm(op(x), axis=1), expected, atol=1e-5)


def test_unmeasured_lines_may_own_cells():
    counts = [
        len(RadialLines((16, 16, 1), views=4, contested=who).rows)
        for who in ("measured", "last")
    ]
    assert counts[0] > counts[1] > 0.8 * counts[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(views=0), "views=0"),
        (dict(views=9, lines=8), "views=9"),
        (dict(expansion=0.5), "expansion=0.5"),
        (dict(contested="mine"), "contested='mine'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        RadialLines((8, 8, 1), **settings)


def test_projection_of_the_release(shared_data):
    """Its spectrum, and what one projection makes of noise and of the image itself."""
    with np.load(shared_data / "golden" / "song22_64_ops.npz") as kept:
        kept = dict(kept)
    op = RadialLines((64, 64, 1), views=23, contested="last")
    image, noise = (jnp.asarray(kept[k])[..., None] for k in ("img", "x_in"))
    found, expected = op(image), op.from_spectrum(jnp.asarray(kept["kspace"]))
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    back = op.adjoint(op.from_spectrum(jnp.asarray(kept["known"])))
    for x, coefficient, name in (
        (noise, 0.841, "projected_coeff0841"),
        (image, 1.0, "self_projection"),
    ):
        projected = (x + coefficient * (back - op.normal(x)))[..., 0]
        np.testing.assert_allclose(projected, kept[name], atol=1e-6)
