"""Maps of a run come back in the terms of the input: affine, places, size."""

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import write
from PIL import Image

from klip_jax.config import build
from klip_jax.export.finished import export, safe
from klip_jax.run.store import COLUMNS, Store, create

RNG = np.random.default_rng(0)
RAS = np.array([[-0.5, 0, 0, 9], [0, 0.75, 0, -7], [0, 0, 2, 3], [0, 0, 0, 1.0]])


def finished(workdir, data, maps=None, ids=None):
    """Write what a run of `data` leaves behind; returns its maps and images."""
    images = build("data", data)
    maps = RNG.uniform(1, 2, (len(images), *images.shape[:2])) if maps is None else maps
    settings = dict(data=data, main="klip", calibration=dict(healthy=None))
    create(workdir, dict(digest="d", chunk=len(images), settings=settings))
    rows = {name: [0] * len(images) for name in COLUMNS}
    rows |= dict(index=list(range(len(images))), image_id=list(ids or images.ids))
    for name in ("group", "patient", "detector"):
        rows[name] = [""] * len(images)
    Store(workdir).write_chunk(0, rows, {"klip/heatmap": maps}, len(images))
    return np.float32(maps), images


def volume(path, shape=(7, 6, 5)):
    voxels = np.int16(RNG.integers(0, 100, shape))
    nibabel.save(nibabel.Nifti1Image(voxels, RAS), path)
    return dict(name="nifti.load", file=str(path), scale=100.0)


def test_nifti_has_the_affine_and_each_voxel_its_map(tmp_path):
    data = volume(tmp_path / "a.nii.gz")
    # The run looks at the volume itself, so each voxel's map is known.
    _, images = finished(tmp_path / "plain", data, build("data", data).images[..., 0])
    (path,) = export(tmp_path / "plain", "nifti")
    assert path.name == "a_klip.nii.gz"
    map_, source = nibabel.load(path), nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(map_.affine, source.affine)
    np.testing.assert_allclose(
        map_.get_fdata(), source.get_fdata() / 100, atol=1e-6, strict=True
    )
    assert map_.header["sform_code"] == source.header["sform_code"]
    assert map_.get_data_dtype() == np.float32 and len(images) == 5


def test_what_was_cropped_is_nan_and_padding_comes_off(tmp_path):
    inner = volume(tmp_path / "a.nii") | dict(plane="coronal")
    data = dict(name="fit.load", data=inner, crop=(4, 6), pad=(8,))
    own = build("data", data).images[..., 0]
    finished(tmp_path / "run", data, own)
    (path,) = export(tmp_path / "run", "nifti")
    map_ = nibabel.load(path).get_fdata()
    source = nibabel.load(tmp_path / "a.nii").get_fdata() / 100
    seen = np.isfinite(map_)
    assert seen.sum() == 6 * 4 * 6  # slices of 4x6 of 5x7
    np.testing.assert_allclose(map_[seen], source[seen], atol=1e-6)


def test_dicom_refers_to_the_series(tmp_path):
    stored = RNG.integers(0, 1200, (3, 6, 5))
    uids = []
    for i in range(3):
        path = write(
            tmp_path / f"s/{3 - i}.dcm",
            stored[i],
            z=2.0 * i,
            FrameOfReferenceUID="1.9",
            StudyTime="120000",
            StudyID="7",
            AccessionNumber="",
            ReferringPhysicianName="",
            PatientBirthDate="",
            PatientSex="",
            PositionReferenceIndicator="",
        )
        uids.append(pydicom.dcmread(path).SOPInstanceUID)
    data = dict(name="dicom.load", folder=str(tmp_path / "s"), window=(40.0, 2000.0))
    maps, _ = finished(tmp_path / "run", data)
    (path,) = export(tmp_path / "run", "dicom")
    read = pydicom.dcmread(path)
    assert read.SOPClassUID.name == "Parametric Map Storage"
    assert read.PatientID == "Jane Roe" and read.StudyInstanceUID == "1.2"
    references = read.ReferencedSeriesSequence[0]
    assert references.SeriesInstanceUID == "1.2.3"
    named = [s.ReferencedSOPInstanceUID for s in references.ReferencedInstanceSequence]
    assert sorted(named) == sorted(uids)
    pixels = np.frombuffer(read.FloatPixelData, np.float32).reshape(3, 6, 5)
    places = [
        float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        for frame in read.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(places) == [0, 2, 4]
    for z, frame in zip(places, pixels, strict=True):
        np.testing.assert_allclose(frame, maps[int(z / 2)], rtol=1e-6)


def test_overlays_have_the_size_of_the_input(tmp_path):
    (tmp_path / "in").mkdir()
    pixels = RNG.integers(0, 200, (2, 20, 12), np.uint8)
    for i, name in enumerate(("schädel (1)", "b")):
        Image.fromarray(pixels[i]).save(tmp_path / f"in/{name}.png")
    inner = dict(name="folder.load", folder=str(tmp_path / "in"))
    data = dict(name="fit.load", data=inner, resize=(10, 6), pad=(16, 8))
    maps = np.zeros((2, 16, 8), np.float32)
    maps[1, 5:7, 2:4] = 1
    finished(tmp_path / "run", data, maps)
    paths = export(tmp_path / "run", "png")
    assert [p.name for p in paths] == ["00000_b.png", "00001_sch_del_1_.png"]
    with Image.open(paths[0]) as plain, Image.open(paths[1]) as odd:
        shown, marked = np.asarray(plain), np.asarray(odd)
    # Nothing was seen in the first: it is the input, not what became of it.
    np.testing.assert_array_equal(shown, np.repeat(pixels[1][..., None], 3, -1))
    changed = np.abs(marked - np.float32(pixels[0])[..., None]).sum(-1)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert 3 <= row <= 8 and 1 <= column <= 6


def test_what_cannot_be_exported(tmp_path):
    data = volume(tmp_path / "a.nii")
    finished(tmp_path / "run", data)
    with pytest.raises(ValueError, match="--to=stl: give one of nifti, dicom, png"):
        export(tmp_path / "run", "stl")
    with pytest.raises(ValueError, match=r"no maps of 'x'; there are \['klip/heatmap'"):
        export(tmp_path / "run", "nifti", detector="x")
    with pytest.raises(ValueError, match=r"a\.nii: is no DICOM file; give --to=nifti"):
        export(tmp_path / "run", "dicom")
    finished(tmp_path / "other", data, ids=["a", "b", "c", "d", "e"])
    with pytest.raises(ValueError, match=r"image 0 was 'a' and is no more"):
        export(tmp_path / "other", "nifti")
    with pytest.raises(FileNotFoundError, match="no run here"):
        export(tmp_path / "absent", "nifti")
    noise = dict(name="noise.load", groups=("blobs",), per_group=2, shape=(8, 8, 1))
    finished(tmp_path / "noise", noise)
    with pytest.raises(ValueError, match="do not lie in files of their own"):
        export(tmp_path / "noise", "nifti")


def test_names_are_safe():
    assert safe("../../etc/pass wd\0", 3) == "00003_.._.._etc_pass_wd_"
    assert len(safe("x" * 500, 3)) < 80
