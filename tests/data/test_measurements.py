"""Measurements by the first bytes of their file, and fastMRI's k-space as ours."""

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from klip_jax.data import measurements
from klip_jax.operators.mri import Cartesian

RNG = np.random.default_rng(0)
Y = RNG.normal(size=(3, 4, 5))


def matlab73(path, **arrays):
    """Write what MATLAB does: a header of 512 bytes, the last axis first."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")


@pytest.mark.parametrize("ending", ["npz", "npy", "h5", "mat", "v73.mat"])
def test_one_array_in_every_kind(tmp_path, ending):
    path = tmp_path / f"y.{ending}"
    if ending == "npz":
        np.savez(path, y=Y)
    elif ending == "npy":
        np.save(path, Y)
    elif ending == "h5":
        h5py.File(path, "w").create_dataset("sinogram", data=Y)
    elif ending == "mat":
        scipy.io.savemat(path, dict(y=Y, other=Y[0]))
    else:
        matlab73(path, y=Y, other=Y[0])
    read = measurements.read(path)
    np.testing.assert_array_equal(read["y"], Y)
    assert ending != "v73.mat" or read["other"].shape == (4, 5)


def test_names_and_complex_numbers(tmp_path):
    path = tmp_path / "y.h5"
    with h5py.File(path, "w") as file:
        file["y"], file["ids"] = Y + 1j, ["a", "ä", "c"]
    read = measurements.read(path)
    assert read["y"].dtype == complex and list(read["ids"]) == ["a", "ä", "c"]
    pair = np.zeros(3, [("real", float), ("imag", float)])
    pair["imag"] = 2
    matlab73(tmp_path / "c.mat", y=pair)
    np.testing.assert_array_equal(measurements.read(tmp_path / "c.mat")["y"], [2j] * 3)


@pytest.mark.parametrize("shape", [(8, 6), (7, 9)])
def test_kspace_of_fastmri_is_what_our_scanner_measures(tmp_path, shape):
    image = RNG.normal(size=shape)
    centred = np.fft.ifftshift(image)
    kspace = np.fft.fftshift(np.fft.fft2(centred, norm="ortho"))
    mask = np.arange(shape[1]) % 3 != 0
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = np.complex64(kspace * mask)[None]
        file["mask"] = np.float32(mask)
    read = measurements.read(tmp_path / "k.h5")
    operator = Cartesian((*shape, 1), lines=mask, centred=True)
    measurements.check_lines(read["centred_mask"], operator, "k.h5")
    expected = operator(jnp.float32(image)[..., None])
    measured = operator.measured(read["y"])[0]
    np.testing.assert_allclose(measured, expected, atol=2e-6)
    for other in (Cartesian((*shape, 1)), Cartesian((*shape, 1), lines=mask)):
        with pytest.raises(ValueError, match=r"k\.h5: .* operator\.centred=True"):
            measurements.check_lines(read["centred_mask"], other, "k.h5")


def test_kspace_without_its_mask(tmp_path):
    def read(kspace, **mask):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            for name, values in dict(kspace=kspace, **mask).items():
                file[name] = values
        return measurements.read(tmp_path / "x.h5")

    kspace = np.ones((2, 6, 8), np.complex64)
    assert read(kspace)["y"].shape == (2, 6, 8)
    kspace[..., 3] = 0
    with pytest.raises(ValueError, match=r"1 of 8 lines of k-space are 0 and there"):
        read(kspace)
    for mask, words in (
        (np.ones(7), r"mask \(7,\) for 8 lines"),
        (np.ones(8), "line 3 of k-space is 0, but was measured by the mask"),
    ):
        with pytest.raises(ValueError, match=words):
            read(kspace, mask=mask)
    with pytest.raises(ValueError, match="it must be complex"):
        read(kspace.real)


def test_what_cannot_be_read(tmp_path):
    path = tmp_path / "y.h5"
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = Y, Y
    with pytest.raises(ValueError, match=r"no array 'y'; it has \['a', 'b'\]"):
        measurements.read(path)
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(ValueError, match=r"y\.h5: not a whole HDF5 file"):
        measurements.read(path)
    np.save(tmp_path / "o.npy", np.array([{}]))
    with pytest.raises(ValueError, match=r"o\.npy: not a whole, plain \.npy file"):
        measurements.read(tmp_path / "o.npy")
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 200)
    with pytest.raises(ValueError, match=r"x\.mat: not a whole MATLAB file"):
        measurements.read(tmp_path / "x.mat")
    (tmp_path / "x.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match="no file of measurements by its first bytes"):
        measurements.read(tmp_path / "x.txt")
    with pytest.raises(FileNotFoundError, match="no such measurements"):
        measurements.read(tmp_path / "absent")


def test_no_other_file_is_read(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["y"] = Y
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["y"] = h5py.ExternalLink("secret.h5", "/y")
    with pytest.raises(ValueError, match=r"y\.h5: no array 'y'"):
        measurements.read(tmp_path / "y.h5")
    layout = h5py.VirtualLayout(Y.shape, float)
    layout[...] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "y", Y.shape)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("y", layout)
    with pytest.raises(ValueError, match=r"v\.h5, y: lies in other files"):
        measurements.read(tmp_path / "v.h5")
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file.create_dataset("y", (10**6, 10**6), "f4", chunks=(1, 10**6))
    with pytest.raises(ValueError, match=r"big\.h5, y: declares \(1000000, 1000000\)"):
        measurements.read(tmp_path / "big.h5")
