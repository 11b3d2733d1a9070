"""Series of DICOM: units, order and geometry; what is mixed or missing is refused."""

import numpy as np
import pydicom
import pytest
from dicom_files import write
from pydicom.data import get_testdata_file
from pydicom.uid import JPEGLossless

from klip_jax.data import dicom

RNG = np.random.default_rng(0)
STORED = RNG.integers(0, 1200, (4, 6, 5))
WINDOW = (40.0, 2200.0)


@pytest.fixture
def series(tmp_path):
    """Four slices whose names and numbers run against their places."""
    for i in range(4):
        write(tmp_path / f"s/{9 - i}.dcm", STORED[i], z=3.0 * i, InstanceNumber=i % 2)
    return tmp_path / "s"


def load(folder, **settings):
    return dicom.load(folder=str(folder), **dict(window=WINDOW) | settings)


def test_hounsfield_units_by_place(series):
    loaded = load(series)
    assert loaded.ids == ("9", "8", "7", "6") and loaded.shape == (6, 5, 1)
    assert loaded.spacing == (0.5, 0.75) and loaded.groups == ("",) * 4
    hounsfield = 2.0 * STORED - 1024
    low = WINDOW[0] - WINDOW[1] / 2
    back = loaded.images[..., 0].astype(float) * WINDOW[1] + low
    inside = np.clip(hounsfield, low, low + WINDOW[1])
    np.testing.assert_allclose(back, inside, atol=2e-4)
    assert loaded.regions == () and loaded.body is None
    # Whole Hounsfield units come back whole.
    exact = load(series, window=(), offset=-1024.0, scale=4096.0)
    np.testing.assert_array_equal(exact.images[..., 0] * 4096 - 1024, hounsfield)


def test_no_name_of_a_patient_is_shown(series):
    patients = load(series).patients
    assert len(set(patients)) == 1 and "Roe" not in patients[0]


def test_orders_that_are_asked_for(series):
    assert load(series, order="name").ids == ("6", "7", "8", "9")
    assert load(series, order="number").ids == ("7", "9", "6", "8")
    assert load(series, per_group=2).ids == ("9", "8")
    with pytest.raises(ValueError, match=r"data\.order='time': give one of position"):
        load(series, order="time")


def test_sagittal_slices_lie_along_their_normal(tmp_path):
    for i, x in enumerate((5.0, -5.0, 0.0)):
        tags = dict(
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[x, 0, 0]
        )
        write(tmp_path / f"{i}.dcm", STORED[i], **tags)
    # The normal is -x: from the patient's left to the right.
    assert load(tmp_path).ids == ("0", "2", "1")


def test_a_body_and_a_percentile(series):
    loaded = load(series, window=(), percentile=50.0, rescale=False, inside=0.5)
    greys = np.clip(STORED / np.percentile(STORED, 50), 0, 1)
    np.testing.assert_allclose(loaded.images[..., 0], greys, atol=1e-6)
    assert loaded.regions == ("eligible", "body")
    assert (loaded.body >= (greys > 0.5001)).all() and not loaded.body.all()


def test_monochrome1_is_inverted(tmp_path):
    plain = load(write(tmp_path / "a.dcm", STORED[0]))
    tag = dict(PhotometricInterpretation="MONOCHROME1")
    dark = load(write(tmp_path / "b.dcm", STORED[0], **tag))
    np.testing.assert_allclose(dark.images, 1 - plain.images, atol=1e-6)


def test_frames_of_one_file(tmp_path):
    path = write(tmp_path / "film.dcm", STORED, absent=("ImagePositionPatient",))
    film = load(path)
    assert film.ids == tuple(f"film_{i:04d}" for i in range(4))
    some = film.read([2, 0]).images
    expected = np.stack([load(path).images[i] for i in (2, 0)])
    np.testing.assert_array_equal(some, expected)
    values = np.clip((2.0 * STORED[2] - 1024 + 1060) / 2200, 0, 1)
    np.testing.assert_allclose(some[0, ..., 0], values, atol=1e-6)
    assert film.places[3].number == 3 and film.places[3].file == str(path)


def test_frames_have_places_of_their_own(tmp_path):
    def frame(z):
        plane = pydicom.Dataset()
        plane.ImagePositionPatient = [0, 0, z]
        own = pydicom.Dataset()
        own.PlanePositionSequence = [plane]
        value = pydicom.Dataset()
        value.RescaleSlope, value.RescaleIntercept = 1 + z, 0
        own.PixelValueTransformationSequence = [value]
        return own

    tags = dict(PerFrameFunctionalGroupsSequence=[frame(z) for z in (2, 0, 1)])
    path = write(tmp_path / "e.dcm", STORED[:3], **tags)
    loaded = load(path, window=(), scale=4096.0)
    assert loaded.ids == ("e_0001", "e_0002", "e_0000")
    expected = np.stack([STORED[1], 2 * STORED[2], 3 * STORED[0]])
    np.testing.assert_allclose(loaded.images[..., 0] * 4096, expected, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_jp2klossless.dcm"]
)
def test_however_pixels_are_written(name):
    loaded = load(get_testdata_file(name), window=(), percentile=99.0)
    plain = load(get_testdata_file("MR_small.dcm"), window=(), percentile=99.0)
    np.testing.assert_array_equal(loaded.images, plain.images)
    assert loaded.shape == (64, 64, 1) and loaded.spacing == (0.3125, 0.3125)


def test_a_scanner_s_file():
    path = get_testdata_file("CT_small.dcm")
    loaded = load(path, window=(), offset=-1024.0, scale=4096.0)
    hounsfield = pydicom.dcmread(path).pixel_array - 1024.0
    np.testing.assert_array_equal(loaded.images[0, ..., 0] * 4096 - 1024, hounsfield)


def test_what_is_no_image_is_named(series):
    (series / "notes.txt").write_text("x")
    (series / "plan.dcm").write_bytes(
        open(get_testdata_file("rtplan.dcm"), "rb").read()
    )
    words = r"left out notes\.txt \(no DICOM file\), plan\.dcm \(RT Plan Storage with"
    with pytest.warns(UserWarning, match=words):
        assert len(load(series)) == 4


MIXED = {
    "series": (dict(series="9.9"), r"holds the series 1\.2\.3 \(4 images\), 9\.9"),
    "spacing": (dict(PixelSpacing=[1, 1]), r"mm a pixel \(1\.0, 1\.0\), but .* has \("),
    "bits": (dict(BitsStored=8, HighBit=7), "bits stored 8, but .* has 12"),
    "turned": (dict(ImageOrientationPatient=[0, 1, 0, 1, 0, 0]), "are turned against"),
    "no place": (dict(absent=("ImagePositionPatient",)), "does not say where it lies"),
    "one place": (dict(z=3.0), r"lie at one place, 3 mm: several echoes"),
    "modality": (dict(Modality="MR"), "modality MR, but .* has CT"),
    "colour": (dict(PhotometricInterpretation="RGB"), "an image of RGB, 1 values"),
    "no slope": (dict(absent=("RescaleSlope",)), "CT without Rescale Slope and Inter"),
    "table": (
        dict(ModalityLUTSequence=[pydicom.Dataset()], absent=("RescaleSlope",)),
        "follow a table",
    ),
    "declared": (dict(Rows=60000), "declares 600000 bytes of pixels, it holds 60"),
    "huge": (dict(Rows=65000, Columns=65000), "at most 268435456 of a frame are read"),
}


@pytest.mark.parametrize("case", MIXED)
def test_what_is_mixed_or_missing(series, case):
    tags, words = MIXED[case]
    write(series / "odd.dcm", STORED[0], **dict(z=50.0) | tags)
    with pytest.raises(ValueError, match=words):
        load(series)


def test_other_sizes(series):
    write(series / "odd.dcm", STORED[0].T, z=50)
    with pytest.raises(ValueError, match=r"odd\.dcm: pixels \(5, 6\), but .* has \(6,"):
        load(series)


def test_several_series_that_are_asked_for(series):
    write(series / "b/9.dcm", STORED[0], series="9.9")
    assert load(series, series="9.9").ids == ("9",)
    both = load(series, series="all")
    assert both.ids[:2] == ("9.dcm", "8.dcm") and both.ids[4] == "b/9.dcm"
    with pytest.raises(ValueError, match=r"say with data\.series which one"):
        load(series, series="7")


def test_anonymised_away(tmp_path):
    gone = ("Modality", "RescaleSlope", "RescaleIntercept", "PatientID", "PixelSpacing")
    path = write(tmp_path / "a.dcm", STORED[0], absent=gone)
    with pytest.raises(ValueError, match=r"of no modality and without Rescale Slope"):
        load(path)
    loaded = load(path, rescale=False, window=(600, 1200))
    np.testing.assert_allclose(loaded.images[0, ..., 0], STORED[0] / 1200, atol=1e-6)
    assert loaded.spacing is None


def test_without_a_decoder(tmp_path):
    data = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
    data.file_meta.TransferSyntaxUID = JPEGLossless
    data.PixelData = pydicom.encaps.encapsulate([b"\0\0"])
    data["PixelData"].is_undefined_length = True
    data.save_as(tmp_path / "a.dcm")
    if pydicom.pixels.get_decoder(JPEGLossless).is_available:
        pytest.skip("somebody installed the decoder")
    with pytest.raises(ValueError, match=r"compressed as JPEG Lossless.*no decoder"):
        load(tmp_path, percentile=99.0, window=())


def test_broken_files(tmp_path, series):
    path = series / "6.dcm"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"6\.dcm: .*(declares|not a whole DICOM)"):
        load(series)
    with pytest.raises(ValueError, match=r"not a whole DICOM file"):
        (tmp_path / "x.dcm").write_text("no")
        load(tmp_path / "x.dcm")
    with pytest.raises(ValueError, match="no DICOM file with an image"):
        (tmp_path / "empty").mkdir()
        load(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load(tmp_path / "absent")


def test_black_and_white_are_asked_for(series):
    words = r"what is black and what is white\? .*from -\d+ to \d+; give data.window="
    with pytest.raises(ValueError, match=words):
        load(series, window=())
    with pytest.raises(ValueError, match="give one of them"):
        load(series, percentile=3.0)
    with pytest.raises(ValueError, match=r"data\.window=\(1,\): give \(level, width\)"):
        load(series, window=(1,))
    with pytest.raises(ValueError, match=r"of the pixels outside; .*data\.clip=True"):
        load(series, window=(), offset=0.0, scale=500.0).digest()
