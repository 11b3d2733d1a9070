"""Images in one array: .npy, zarr, MATLAB, HDF5; and which reader a path is for."""

import h5py
import numpy as np
import pytest
import scipy.io
import zarr
from dicom_files import write
from PIL import Image

from klip_jax.data import array, hdf5
from klip_jax.data.kinds import settings_of

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (5, 6, 4), np.uint8)
MASKS = np.zeros(BYTES.shape, np.uint8)
MASKS[3, 2, 1] = 255


@pytest.mark.parametrize("ending", ["npy", "zarr", "group.zarr", "mat"])
def test_one_array_of_images(tmp_path, ending):
    path, marks = tmp_path / f"x.{ending}", tmp_path / f"m.{ending}"
    for name, values in ((path, BYTES), (marks, MASKS)):
        if ending == "npy":
            np.save(name, values)
        elif ending == "mat":
            turned = np.moveaxis(BYTES, 0, -1), np.moveaxis(MASKS, 0, -1)
            scipy.io.savemat(name, dict(images=turned[0], marks=turned[1]))
        elif ending == "zarr":
            zarr.save_array(name, values)
        else:
            zarr.save_group(name, images=values)
    masks = "marks" if ending == "mat" else str(marks)
    loaded = array.load(file=str(path), masks=masks)
    np.testing.assert_allclose(loaded.images[..., 0] * 255, BYTES, atol=1e-4)
    assert loaded.groups == ("id",) * 3 + ("anomalous", "id")
    np.testing.assert_array_equal(loaded.masks, MASKS > 0)
    plain = array.load(file=str(path), group="id", per_group=2)
    assert plain.groups == ("id", "id") and plain.masks is None
    some = plain.read([1])
    np.testing.assert_allclose(some.images[0, ..., 0] * 255, BYTES[1], atol=1e-4)


def test_arrays_that_are_no_images(tmp_path):
    for values, words in (
        (BYTES[0], r"an array \(6, 4\); images are \[N, H, W\]"),
        (BYTES + 1j, "images of complex128; they must be real"),
        (np.array([[[{}]]]), "not a whole, plain"),
    ):
        np.save(tmp_path / "x.npy", values)
        with pytest.raises(ValueError, match=words):
            array.load(file=str(tmp_path / "x.npy"))
    np.save(tmp_path / "x.npy", BYTES)
    np.save(tmp_path / "m.npy", MASKS[1:])
    with pytest.raises(ValueError, match=r"masks \(4, 6, 4\) for images \(5, 6, 4\)"):
        array.load(file=str(tmp_path / "x.npy"), masks=str(tmp_path / "m.npy"))
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:150])
    with pytest.raises(ValueError, match=r"x\.npy: not a whole, plain \.npy file"):
        array.load(file=str(tmp_path / "x.npy"))
    with pytest.raises(FileNotFoundError, match="no such data"):
        array.load(file=str(tmp_path / "absent.npy"))


def fastmri(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def test_reconstructions_of_fastmri(tmp_path):
    volumes = RNG.uniform(1, 2, (2, 3, 6, 4)).astype(np.float32)
    for i in range(2):
        fastmri(tmp_path / f"file{i}.h5", reconstruction_rss=volumes[i], kspace=[1j])
    loaded = hdf5.load(file=str(tmp_path), percentile=100.0)
    assert loaded.patients == ("file0",) * 3 + ("file1",) * 3
    white = volumes.max((1, 2, 3), keepdims=True)
    expected = (volumes / white).reshape(6, 6, 4)
    np.testing.assert_allclose(loaded.images[..., 0], expected, atol=1e-6)
    assert loaded.spacing is None and loaded.places[4].number == 1
    with pytest.raises(ValueError, match=r"what is black and what is white\?"):
        hdf5.load(file=str(tmp_path))


def test_an_image_of_full_kspace(tmp_path):
    image = RNG.uniform(0.1, 1, (2, 1, 6, 4))
    coils = np.array([0.6, 0.8j])[:, None, None]
    shifted = np.fft.ifftshift(image * coils, (-2, -1))
    kspace = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), (-2, -1))
    path = fastmri(tmp_path / "a.h5", kspace=kspace.astype(np.complex64))
    loaded = hdf5.load(file=str(path), scale=1.0, inside=0.5)
    np.testing.assert_allclose(loaded.images[..., 0], image[:, 0], atol=1e-6)
    assert loaded.regions == ("eligible", "body")
    masked = dict(kspace=kspace, mask=[True, True, False, True])
    with pytest.raises(ValueError, match="measured in part, by the array 'mask'"):
        hdf5.load(file=str(fastmri(tmp_path / "b.h5", **masked)), scale=1.0)
    kspace[..., 1] = 0
    path = fastmri(tmp_path / "c.h5", kspace=kspace)
    with pytest.raises(ValueError, match=r"lines of k-space are 0 and there is no"):
        hdf5.load(file=str(path), scale=1.0).digest()


def test_hdf5_that_is_broken_or_another(tmp_path):
    path = fastmri(tmp_path / "a.h5", x=np.ones((2, 6, 4)), y=np.ones(3))
    with pytest.raises(ValueError, match=r"which array\? .* of \['x', 'y'\]"):
        hdf5.load(file=str(path), scale=1.0)
    assert len(hdf5.load(file=str(path), array="x", scale=1.0)) == 2
    with pytest.raises(ValueError, match=r"a\.h5, y: float64 \(3,\); slices of grey"):
        hdf5.load(file=str(path), array="y", scale=1.0)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"a\.h5: not a whole HDF5 file"):
        hdf5.load(file=str(path), scale=1.0)


def test_spacing_of_an_ismrmrd_header(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    size = "<matrixSize><x>4</x><y>6</y><z>1</z></matrixSize>"
    view = "<fieldOfView_mm><x>8</x><y>9</y><z>1</z></fieldOfView_mm>"
    space = size + view
    text = (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        "<experimentalConditions><H1resonanceFrequency_Hz>1</H1resonanceFrequency_Hz>"
        f"</experimentalConditions><encoding><encodedSpace>{space}</encodedSpace>"
        f"<reconSpace>{space}</reconSpace><encodingLimits/><trajectory>cartesian"
        "</trajectory></encoding></ismrmrdHeader>"
    )
    assert ismrmrd.xsd.CreateFromDocument(text).encoding
    volume = np.ones((2, 6, 4))
    path = fastmri(tmp_path / "a.h5", reconstruction_esc=volume, ismrmrd_header=text)
    assert hdf5.load(file=str(path), scale=1.0).spacing == (1.5, 2.0)


def test_which_reader_a_path_is_for(tmp_path):
    def put(name, writer):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        writer(tmp_path / name)

    picture = Image.fromarray(BYTES[0])
    put("p/a.png", picture.save)
    put("n/a.nii.gz", lambda path: path.write_bytes(b"\x1f\x8b"))
    put("d/IM0001", lambda path: write(path, BYTES[0]))
    put("h/a.h5", lambda path: fastmri(path, x=[1]))
    put("x.npz", lambda path: np.savez(path, images=BYTES))
    put("x.npy", lambda path: np.save(path, BYTES))
    put("x.zarr", lambda path: zarr.save_array(path, BYTES))
    put("x.mat", lambda path: scipy.io.savemat(path, dict(images=BYTES)))
    for name in ("train/good", "test/good", "test/bad"):
        put(f"m/{name}/a.png", picture.save)
    names = {
        path: settings_of(str(tmp_path / path))["name"]
        for path in ("p", "p/a.png", "n", "d", "h", "x.npz", "x.npy", "x.zarr", "x.mat")
    }
    assert list(names.values()) == [
        *("folder.load", "folder.load", "nifti.load", "dicom.load", "hdf5.load"),
        *("npz.load", "array.load", "array.load", "array.load"),
    ]
    assert settings_of(str(tmp_path / "m"))["name"] == "mvtec.load"
    masked = settings_of(str(tmp_path / "p"), masks="m")
    assert masked["name"] == "masked.load" and masked["data"]["name"] == "folder.load"
    assert settings_of(str(tmp_path / "n"), masks="m")["masks"].endswith("/m")
    with pytest.raises(ValueError, match=r"several kinds, 1 of dicom, .* of picture"):
        settings_of(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such file or folder of images"):
        settings_of(str(tmp_path / "absent"))
    put("t/a.txt", lambda path: path.write_text("x"))
    with pytest.raises(ValueError, match="no reader is for such a file"):
        settings_of(str(tmp_path / "t"))
