"""Small DICOM files for tests, written by pydicom."""

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = [1, 0, 0, 0, 1, 0]


def write(path, stored, *, z=0.0, series="1.2.3", absent=(), **tags):
    """Write `stored` [H, W] or [frames, H, W], 16 bits, as CT of slope 2 and -1024."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    stored = np.asarray(stored, "<u2")
    given = dict(
        SOPClassUID=CTImageStorage,
        SOPInstanceUID=meta.MediaStorageSOPInstanceUID,
        StudyInstanceUID="1.2",
        SeriesInstanceUID=series,
        PatientID="Jane Roe",
        PatientName="Roe^Jane",
        StudyDate="20260101",
        Modality="CT",
        Rows=stored.shape[-2],
        Columns=stored.shape[-1],
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=16,
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=0,
        PixelSpacing=[0.5, 0.75],
        SliceThickness=2,
        ImageOrientationPatient=AXIAL,
        ImagePositionPatient=[-10, -20, z],
        RescaleSlope=2,
        RescaleIntercept=-1024,
    )
    if stored.ndim == 3:
        given["NumberOfFrames"] = len(stored)
    for name, value in (given | tags).items():
        if name not in absent:
            setattr(data, name, value)
    data.PixelData = stored.tobytes()
    data.save_as(path, enforce_file_format=True)
    return path
