"""Volumes of NIfTI: which way is up, which axis slices are along, and back."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from klip_jax.data import nifti

OWN = Path(nibabel.__file__).parent / "tests/data"
RNG = np.random.default_rng(0)
VOXELS = np.int16(RNG.integers(-1000, 1000, (5, 6, 4)))
RAS = np.diag([0.5, 0.75, 2.0, 1.0])
LAS = np.diag([-0.5, 0.75, 2.0, 1.0])


def write(path, voxels=VOXELS, affine=RAS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


def load(path, **settings):
    settings = dict(offset=-1000.0, scale=2000.0) | settings
    return nifti.load(file=str(path), **settings)


def values(loaded):
    return np.round(loaded.images[..., 0] * 2000 - 1000)


def test_an_axial_slice_has_the_front_up_and_the_right_to_the_left(tmp_path):
    loaded = load(write(tmp_path / "a.nii.gz"))
    assert loaded.shape == (6, 5, 1) and loaded.spacing == (0.75, 0.5)
    assert loaded.ids == ("a_0000", "a_0001", "a_0002", "a_0003")
    # Voxel axes run to the right, the front and the head: rows and columns run back.
    expected = VOXELS[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(values(loaded), expected)
    other = load(write(tmp_path / "b.nii", affine=LAS))
    expected = VOXELS[:, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(values(other), expected)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "0", "1", "2"])
@pytest.mark.parametrize("stored", [True, False])
def test_slices_lie_where_they_were(tmp_path, plane, stored):
    loaded = load(write(tmp_path / "a.nii"), plane=plane, stored=stored)
    volume = np.full(VOXELS.shape, np.nan)
    for place, image in zip(loaded.places, values(loaded), strict=True):
        at = [slice(None)] * 3
        at[place.axes[0][0]] = place.number
        volume[tuple(at)] = place.laid(image)
    np.testing.assert_array_equal(volume, VOXELS)
    axis = {"axial": 2, "coronal": 1, "sagittal": 0}.get(plane, plane)
    assert len(loaded) == VOXELS.shape[int(axis)]


def test_planes_as_a_radiologist_sees_them(tmp_path):
    path = write(tmp_path / "a.nii")
    coronal = load(path, plane="coronal")
    expected = VOXELS[::-1, :, ::-1].transpose(1, 2, 0)
    np.testing.assert_array_equal(values(coronal), expected)
    sagittal = load(path, plane="sagittal")
    # From the right to the left: against the stored axis, which says so.
    expected = VOXELS[::-1, ::-1, ::-1].transpose(0, 2, 1)
    np.testing.assert_array_equal(values(sagittal), expected)
    assert sagittal.ids[0] == "a_0004" and sagittal.spacing == (2.0, 0.75)


def test_a_folder_with_masks(tmp_path):
    marks = np.zeros(VOXELS.shape, np.uint8)
    marks[1, 2, 3], marks[4, 4, 0] = 2, 1
    for name in ("p2", "p10"):
        write(tmp_path / f"v/{name}.nii.gz")
        write(tmp_path / f"m/{name}.nii.gz", marks)
    (tmp_path / "v/readme.txt").write_text("x")
    with pytest.warns(UserWarning, match=r"left out readme\.txt \(no NIfTI file\)"):
        loaded = load(tmp_path / "v", masks=str(tmp_path / "m"), label=2, inside=0.5)
    assert loaded.patients == ("p2",) * 4 + ("p10",) * 4
    assert loaded.groups == ("id", "id", "id", "anomalous") * 2
    assert loaded.regions == ("masks", "eligible", "body")
    assert loaded.masks.sum() == 2 and loaded.masks[3, 5 - 2, 4 - 1]
    with pytest.raises(ValueError, match=r"labels 0, 1, 2; say with data\.label"):
        load(tmp_path / "v/p2.nii.gz", masks=str(tmp_path / "m/p2.nii.gz"))
    write(tmp_path / "m/p2.nii.gz", marks, LAS)
    with pytest.raises(ValueError, match="or another affine than"):
        load(tmp_path / "v/p2.nii.gz", masks=str(tmp_path / "m/p2.nii.gz"), label=2)


def test_windows_and_percentiles(tmp_path):
    path = write(tmp_path / "a.nii")
    loaded = load(path, scale=0.0, offset=0.0, percentile=90.0, stored=True)
    white = np.percentile(VOXELS, 90)
    expected = np.clip(VOXELS[:, :, 2] / white, 0, 1)
    np.testing.assert_allclose(loaded.images[2, ..., 0], expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"what is black and what is white\?"):
        load(path, scale=0.0, offset=0.0)


def test_nibabel_s_own_files():
    loaded = load(OWN / "anatomical.nii", scale=0.0, offset=0.0, percentile=99.5)
    image = nibabel.load(OWN / "anatomical.nii")
    assert len(loaded) == image.shape[2] and loaded.shape[:2] == image.shape[1::-1]
    with pytest.raises(ValueError, match=r"a volume has three axes; save one time"):
        load(OWN / "example4d.nii.gz")


def test_a_slice_axis_that_is_not_clear(tmp_path):
    thick = write(tmp_path / "t.nii", affine=np.diag([0.5, 4.0, 0.5, 1.0]))
    words = r"not taken axially but along the stored axis 1 \(A\); say data\.plane"
    with pytest.raises(ValueError, match=words):
        load(thick)
    assert len(load(thick, plane="axial")) == 4
    image = nibabel.Nifti1Image(VOXELS, None)
    image.header.set_sform(None, 0)
    image.header.set_qform(None, 0)
    nibabel.save(image, tmp_path / "u.nii")
    with pytest.raises(ValueError, match=r"how it lies; give data\.plane="):
        load(tmp_path / "u.nii")
    with pytest.raises(ValueError, match=r"does not say how it lies; give data.stored"):
        load(tmp_path / "u.nii", plane="2")
    np.testing.assert_array_equal(
        values(load(tmp_path / "u.nii", plane="2", stored=True)),
        VOXELS.transpose(2, 0, 1),
    )


def test_what_is_mixed(tmp_path):
    write(tmp_path / "a.nii")
    write(tmp_path / "b.nii", affine=np.diag([0.6, 0.75, 2, 1]))
    with pytest.raises(ValueError, match=r"b\.nii: .*0\.6.* mm a pixel, but a\.nii"):
        load(tmp_path)
    write(tmp_path / "b.nii", VOXELS[:4])
    with pytest.raises(ValueError, match=r"b\.nii: slices of \(6, 4\) pixels, but a"):
        load(tmp_path)


def test_broken_files(tmp_path):
    path = write(tmp_path / "a.nii")
    whole = path.read_bytes()
    path.write_bytes(whole[:400])
    with pytest.raises(ValueError, match=r"a\.nii: declares 5x6x4 voxels, 240 bytes"):
        load(path)
    path.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"a\.nii: not a whole NIfTI file"):
        load(path)
    zipped = tmp_path / "b.nii.gz"
    zipped.write_bytes(gzip.compress(whole)[:-60])
    with pytest.raises(ValueError, match=r"b\.nii\.gz: not a whole NIfTI file"):
        load(zipped).digest()
    colour = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ValueError, match=r"c\.nii: voxels of .*grey is expected"):
        load(write(tmp_path / "c.nii", colour))
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "absent.nii")
    with pytest.raises(ValueError, match=r"no \.nii or \.nii\.gz file in it"):
        (tmp_path / "empty").mkdir()
        load(tmp_path / "empty")
