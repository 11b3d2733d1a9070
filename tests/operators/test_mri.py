"""Cartesian MRI with one coil and with several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators.mri import Cartesian, MultiCoil
from klip_jax.run.inputs import load_measurements


def complex_image(shape):
    """Return a random image [H, W, 1 or 2] and the same as complex [H, W]."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return x, x[..., 0] if shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]


def dense(op):
    """Write an operator as a float64 matrix [rows, columns]."""
    basis = jnp.eye(np.prod(op.in_shape)).reshape(-1, *op.in_shape)
    return (
        np.asarray(jax.jit(jax.vmap(op))(basis), np.float64).reshape(len(basis), -1).T
    )


@pytest.mark.parametrize("shape", [(16, 12, 1), (17, 19, 2)])
def test_mri_equals_the_kept_columns_of_the_fourier_transform(shape):
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    image = x[..., 0] if shape[-1] == 1 else x[..., 0] + 1j * x[..., 1]
    op = Cartesian(shape, acceleration=2)
    expected = np.fft.fft2(image, norm="ortho")[:, op.lines]
    y = np.asarray(op(jnp.asarray(x)))
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], expected, atol=1e-5)


@pytest.mark.parametrize("width", [16, 17, 64, 65])
@pytest.mark.parametrize("acceleration", [1, 2, 4])
def test_lines_are_hermitian_pairs_within_the_budget(width, acceleration):
    op = Cartesian((8, width, 1), acceleration=acceleration, seed=3)
    lines = set(np.asarray(op.lines).tolist())
    assert 0 in lines
    assert lines == {-k % width for k in lines}
    budget = round(width / acceleration)
    assert budget - 1 <= len(lines) <= budget


def test_the_centre_is_always_kept():
    for seed in range(3):
        lines = np.asarray(Cartesian((4, 100, 1), centre=0.1, seed=seed).lines)
        assert {0, 1, 2, 3, 4, 5, 95, 96, 97, 98, 99} <= set(lines.tolist())


@pytest.mark.parametrize("channels", [1, 2])
def test_without_acceleration_the_zero_filled_image_is_the_image(channels):
    op = Cartesian((12, 17, channels), acceleration=1)
    x = jax.random.normal(jax.random.key(0), op.in_shape)
    np.testing.assert_allclose(op.naive_inverse(op(jnp.asarray(x))), x, atol=1e-5)


def test_real_images_give_hermitian_data_so_the_gram_matrix_is_a_projection():
    op = Cartesian((8, 9, 1), acceleration=2)
    y = jax.random.normal(jax.random.key(0), op.out_shape)
    projected = op(op.adjoint(y))
    assert jnp.linalg.norm(projected) < 0.9 * jnp.linalg.norm(y)
    np.testing.assert_allclose(op(op.adjoint(projected)), projected, atol=1e-5)


@pytest.mark.parametrize("pattern", ["random", "equispaced"])
@pytest.mark.parametrize("channels", [1, 2])
def test_unpaired_lines_are_solved_exactly(pattern, channels):
    op = Cartesian((5, 12, channels), acceleration=2, pattern=pattern)
    assert 0 < op.paired.sum() < op.paired.size
    a = dense(op)
    r = jax.random.normal(jax.random.key(1), op.out_shape)
    expected = np.linalg.solve(0.7 * a @ a.T + 0.01 * np.eye(len(a)), np.ravel(r))
    found = np.ravel(op.solve_gram(r, 0.7, 0.01))
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_a_missing_line_is_filled_with_its_mirror_image():
    op = Cartesian((8, 16, 1), acceleration=16 / 9, pattern="random", centre=0.0)
    lines = set(np.asarray(op.lines).tolist())
    assert lines != {-k % 16 for k in lines}
    x = jax.random.normal(jax.random.key(0), op.in_shape)
    np.testing.assert_allclose(op(op.naive_inverse(op(x))), op(x), atol=1e-5)


def test_random_lines_fill_the_budget_and_keep_their_seed():
    settings = {"acceleration": 4, "pattern": "random"}
    a, b, c = (Cartesian((4, 64, 1), seed=s, **settings).lines for s in (1, 1, 2))
    assert len(set(np.asarray(a).tolist())) == 16
    np.testing.assert_array_equal(a, b)
    assert set(np.asarray(a).tolist()) != set(np.asarray(c).tolist())


def test_equispaced_lines_are_those_of_song_2022():
    op = Cartesian((1, 240, 1), acceleration=8, centre=0.03, pattern="equispaced")
    left = [5, 15, 25, 35, 46, 56, 66, 76, 86, 96, 106]
    right = [127, 137, 147, 157, 167, 177, 187, 197, 208, 218, 228, 238]
    expected = [*left, *range(116, 124), *right]
    np.testing.assert_array_equal(np.sort((op.lines + 120) % 240), expected)


def test_equispaced_lines_end_where_the_centre_uses_the_budget():
    op = Cartesian((4, 16, 1), acceleration=16 / 3, centre=0.125, pattern="equispaced")
    assert set(np.asarray(op.lines).tolist()) == {0, 1, 15}


@pytest.mark.parametrize("shape", [(6, 12, 1), (7, 9, 2)])
def test_multicoil_equals_the_fourier_transform_of_the_coil_images(shape):
    x, image = complex_image(shape)
    rng = np.random.default_rng(1)
    maps = rng.standard_normal((3, *shape[:2])) + 1j * rng.random((3, *shape[:2]))
    op = MultiCoil(shape, maps, acceleration=2, pattern="random")
    expected = np.fft.fft2(maps * image, norm="ortho")[:, :, op.lines]
    y = np.asarray(op(jnp.asarray(x)))
    assert y.shape == op.out_shape
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], expected, atol=1e-5)


def test_one_flat_coil_is_the_single_coil():
    x, _ = complex_image((8, 12, 2))
    single, coil = Cartesian(x.shape), MultiCoil(x.shape, np.ones((1, 8, 12)))
    np.testing.assert_allclose(
        coil(jnp.asarray(x))[0], single(jnp.asarray(x)), atol=1e-6
    )


def test_simulated_sensitivities_are_smooth_distinct_and_frozen():
    a, b, c = (MultiCoil((32, 48, 1), coils=5, seed=s) for s in (1, 1, 2))
    maps = np.asarray(a.sensitivities)
    np.testing.assert_array_equal(maps, b.sensitivities)
    assert abs(maps - c.sensitivities).max() > 0.1
    np.testing.assert_allclose((abs(maps) ** 2).sum(0), 1, rtol=1e-5)
    assert abs(np.diff(maps, axis=1)).max() < 0.2
    assert abs(np.diff(maps, axis=2)).max() < 0.2
    peaks = abs(maps).reshape(5, -1).argmax(1)
    assert len(set(peaks.tolist())) == 5


@pytest.mark.parametrize("channels", [1, 2])
def test_without_acceleration_the_combined_coils_give_the_image(channels):
    x, _ = complex_image((12, 9, channels))
    maps = 3 * np.asarray(MultiCoil(x.shape, coils=3).sensitivities)
    maps[:, :2] = 0
    op = MultiCoil(x.shape, maps, acceleration=1)
    x[:2] = 0
    np.testing.assert_allclose(op.naive_inverse(op(jnp.asarray(x))), x, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coils": 0}, "coils=0"),
        ({"acceleration": 0.5}, "acceleration=0.5"),
        (
            {"sensitivities": np.ones((8, 16))},
            r"shape \(8, 16\): must be \[coils, 8, 16",
        ),
        ({"sensitivities": np.ones((2, 8, 15))}, r"\(2, 8, 15\)"),
        ({"sensitivities": np.zeros((2, 8, 16))}, "0 everywhere"),
        ({"sensitivities": np.full((2, 8, 16), np.nan)}, "not finite"),
    ],
)
def test_wrong_coils_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        MultiCoil((8, 16, 1), **settings)
    with pytest.raises(ValueError, match="channels"):
        MultiCoil((8, 16, 3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acceleration": 0.5}, "acceleration=0.5"),
        ({"centre": 1.5}, "centre=1.5"),
        ({"centre": 0.9}, "lower one"),
        ({"pattern": "spiral"}, "pattern='spiral'.*equispaced"),
    ],
)
def test_wrong_settings_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        Cartesian((8, 16, 1), **settings)
    with pytest.raises(ValueError, match="channels"):
        Cartesian((8, 16, 3))


def centred_fft(x):
    """The k-space of MRI files, in words: shift F unshift."""
    unshifted = np.fft.ifftshift(x, (-2, -1))
    return np.fft.fftshift(np.fft.fft2(unshifted, norm="ortho"), (-2, -1))


@pytest.mark.parametrize("shape", [(8, 12, 1), (7, 9, 2)])
def test_centred_k_space_as_files_have_it(shape):
    x, image = complex_image(shape)
    kept = np.array([1, 3, 4, 5, shape[1] - 1])
    whole = centred_fft(image)
    op = Cartesian(shape, lines=kept, centred=True)
    y = np.asarray(op(jnp.asarray(x)))
    np.testing.assert_allclose(y, op.measured(whole), atol=1e-5)
    np.testing.assert_allclose(y, op.measured(whole[:, kept]), atol=1e-5)
    # To shift the frequencies alone is another number.
    half = np.fft.fftshift(np.fft.fft2(image, norm="ortho"), (0, 1))[:, kept]
    assert np.linalg.norm(op.measured(half) - y) > 0.5 * np.linalg.norm(y)
    a = dense(op)
    r = np.random.default_rng(1).standard_normal(len(a))
    expected = np.linalg.solve(0.7 * a @ a.T + 0.01 * np.eye(len(a)), r)
    u = op.solve_gram(jnp.asarray(r.reshape(op.out_shape), jnp.float32), 0.7, 0.01)
    np.testing.assert_allclose(np.ravel(u), expected, atol=1e-3 * abs(expected).max())


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_measurements_are_read_as_they_are(tmp_path, dtype):
    op = Cartesian((4, 10, 1), lines=(4, 5, 6), centred=True)
    kspace = np.random.default_rng(0).random((2, 4, 10)).astype(dtype) * (1 + 2j)
    np.savez(tmp_path / "y.npz", y=kspace)
    y, ids = load_measurements({"measurements": str(tmp_path / "y.npz")}, op)
    assert ids == ("y_0000", "y_0001") and y.shape == (2, *op.out_shape)
    expected = np.stack([kspace.real, kspace.imag], -1)[:, :, 4:7]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_lines_are_indices_masks_or_files(tmp_path):
    shape = (4, 10, 1)
    mask = np.zeros(10, bool)
    mask[[0, 2, 9]] = True
    np.save(tmp_path / "mask.npy", np.tile(mask, (4, 1)))
    np.savez(tmp_path / "lines.npz", lines=np.array([0, 2, 9]))
    for lines in (
        *((0, 2, -1), mask, mask.astype(float), np.tile(mask, (4, 1))),
        *(tmp_path / "mask.npy", str(tmp_path / "lines.npz")),
    ):
        np.testing.assert_array_equal(Cartesian(shape, lines=lines).lines, [0, 2, 9])
    centred = Cartesian(shape, lines=(0, 5, 9), centred=True)
    np.testing.assert_array_equal(centred.lines, [5, 0, 4])  # -5, 0, 4
    drawn, same = (Cartesian(shape, centred=c).lines for c in (False, True))
    assert sorted(drawn.tolist()) == sorted(same.tolist())


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((0, 0), "each once"),
        ((0, 10), "each once"),
        ((0, -10), "each once"),
        ((0.5,), "indices"),
        ((), "indices"),
        (np.zeros(9, bool), r"\(9,\) must be \(10,\)"),
        (np.zeros(10, bool), "indices"),
        (np.eye(4, 10), "whole columns"),
        (np.ones((3, 10)), "whole columns"),
    ],
)
def test_lines_that_are_none_raise(lines, message):
    with pytest.raises(ValueError, match=message):
        Cartesian((4, 10, 1), lines=lines)


def test_files_that_are_no_arrays_raise(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"nothing")
    np.savez(tmp_path / "b.npz", a=np.ones(2), b=np.ones(2))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(ValueError, match=f"{name}: not one array"):
            Cartesian((4, 10, 1), lines=tmp_path / name)
    with pytest.raises(FileNotFoundError):
        MultiCoil((4, 10, 1), str(tmp_path / "absent.npy"))


@pytest.mark.parametrize("centred", [False, True])
def test_coils_from_k_space_and_from_a_file(tmp_path, centred):
    """Real images: the maps of ESPIRiT carry the phase, so that A x fits."""
    shape = (24, 24, 1)
    x = np.zeros(shape, np.float32)
    x[4:20, 5:18], x[8:12, 8:14] = 1, 0.4
    maps = np.asarray(MultiCoil(shape, coils=3).sensitivities)
    truth = MultiCoil(shape, maps, acceleration=1, centred=centred)
    y = np.asarray(truth(jnp.asarray(x)))
    np.save(tmp_path / "k.npy", y[..., 0] + 1j * y[..., 1])
    lines = np.r_[0:24:4, 6:19] if centred else np.r_[0:7, 8:24:4, 18:24]
    op = MultiCoil(
        shape, lines=np.unique(lines), centred=centred, calibration=tmp_path / "k.npy"
    )
    seen = op.measured(np.load(tmp_path / "k.npy"))
    gap = np.linalg.norm(op(jnp.asarray(x)) - seen) / np.linalg.norm(seen)
    assert gap < 0.03
    np.save(tmp_path / "maps.npy", maps)
    same = MultiCoil(shape, str(tmp_path / "maps.npy"), centred=centred)
    np.testing.assert_array_equal(same.sensitivities, truth.sensitivities)
    with pytest.raises(ValueError, match="not both"):
        MultiCoil(shape, maps, calibration=tmp_path / "k.npy")
    with pytest.raises(ValueError, match="calibration has shape"):
        MultiCoil(shape, calibration=np.ones((3, 5, 5)))
