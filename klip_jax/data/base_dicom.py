"""Files of DICOM: what a header says of each of its frames, and their values.

    value = slope * stored + intercept         (part 3, C.11.1.1)
    place along the normal n = r x c of a frame: n . position     (part 3, C.7.6.2.1.1)

Headers are read whole and pixels one frame at a time. What a header declares is held
against the size of the file before a pixel is read.

Reference: DICOM PS3.3, 2024.
"""

import functools
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from klip_jax.data.base_volume import LARGEST, package

_GREY = ("MONOCHROME1", "MONOCHROME2")
_DEFERRED = 4096  # bytes; longer elements, pixels above all, are not read with a header


class Frame(NamedTuple):
    """An image of a file.

    Attributes:
      file: its path.
      number: of the frame, from 0.
      series: the UID of its series.
      patient: a hash of its patient's number, which a page may show.
      modality: "CT", "MR", ...; "" where it was taken out.
      shape: (rows, columns).
      bits: bits of a value that count.
      spacing: millimetres down the rows and along them, None where it does not say.
      orientation: cosines of rows and columns, () where it does not say.
      position: of the first pixel, millimetres, () where it does not say.
      instance: its number in the series, 0 where it does not say.
      slope, intercept: to the values; None where it does not say.
      inverted: whether high is dark.
    """

    file: Path
    number: int
    series: str
    patient: str
    modality: str
    shape: tuple[int, int]
    bits: int
    spacing: tuple[float, float] | None
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    instance: int
    slope: float | None
    intercept: float | None
    inverted: bool

    @property
    def where(self) -> str:
        """Return how messages call it."""
        return f"{self.file}, frame {self.number}" if self.number else str(self.file)

    @property
    def along(self) -> float:
        """Return its place along its normal, millimetres; NaN where it has none."""
        if len(self.orientation) != 6 or len(self.position) != 3:
            return float("nan")
        row, column = np.reshape(self.orientation, (2, 3))
        return float(np.cross(row, column) @ np.array(self.position))


def is_dicom(path: Path) -> bool:
    """Return whether a file has the mark of DICOM after its preamble."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def frames_of(path: Path) -> list[Frame]:
    """Return the frames of a file, of which no pixel is read.

    Raises:
      ValueError: if it is no DICOM, has no grey image, is shorter than it declares or
        compressed in a way that nothing installed decodes.
    """
    header = _header(path)
    if "Rows" not in header or "Columns" not in header:
        raise ValueError(f"{path}: {_kind(header)} without an image")
    if "PixelData" not in header:
        raise ValueError(f"{path}: has no pixel data (7FE0,0010)")
    samples = int(header.get("SamplesPerPixel", 1))
    photometric = str(header.get("PhotometricInterpretation", ""))
    if samples != 1 or photometric not in _GREY:
        raise ValueError(
            f"{path}: an image of {photometric or 'unknown colours'}, {samples} values "
            "a pixel, where grey is expected; save colour as PNG"
        )
    count = int(header.get("NumberOfFrames", 1) or 1)
    shape = int(header.Rows), int(header.Columns)
    _check_size(path, header, count, shape)
    shared = _first(header, "SharedFunctionalGroupsSequence")
    own = header.get("PerFrameFunctionalGroupsSequence") or [None] * count
    if len(own) != count:
        raise ValueError(f"{path}: {count} frames, but {len(own)} are described")
    common: dict[str, Any] = dict(
        file=path,
        series=str(header.get("SeriesInstanceUID", "")),
        patient=_patient(header),
        modality=str(header.get("Modality", "")),
        shape=shape,
        bits=int(header.get("BitsStored", header.get("BitsAllocated", 0))),
        instance=int(header.get("InstanceNumber", 0) or 0),
        inverted=photometric == "MONOCHROME1",
    )
    return [
        Frame(number=i, **common, **_described(path, header, shared, own[i]))
        for i in range(count)
    ]


def values_of(frame: Frame, rescale: bool) -> Float[np.ndarray, "h w"]:
    """Read one frame; Hounsfield units in CT, if `rescale`.

    Raises:
      ValueError: if its pixels are broken.
    """
    pixels = package("pydicom.pixels", "a DICOM file")
    try:
        stored = pixels.pixel_array(frame.file, index=frame.number)
    except Exception as error:  # decoders of others raise what they like
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{frame.where}: its pixels are broken ({text})") from None
    if stored.shape != frame.shape:
        raise ValueError(
            f"{frame.where}: {stored.shape} pixels were decoded, not {frame.shape}"
        )
    if not rescale or frame.slope is None or frame.intercept is None:
        return stored.astype(np.float32)
    # Whole Hounsfield units stay whole: the product is rounded once.
    values = stored * np.float64(frame.slope) + frame.intercept
    return values.astype(np.float32)


def _header(path: Path):
    pydicom = package("pydicom", "a DICOM file")
    try:
        return pydicom.dcmread(path, defer_size=_DEFERRED)
    except OSError:
        raise
    except Exception as error:  # its parser raises many kinds on broken files
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: not a whole DICOM file ({text})") from None


def _check_size(path, header, count, shape):
    if count < 1 or min(shape) < 1 or shape[0] * shape[1] > LARGEST:
        raise ValueError(
            f"{path}: declares {count} frames of {shape[0]}x{shape[1]} pixels, at most "
            f"{LARGEST} of a frame are read"
        )
    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is None:
        raise ValueError(f"{path}: does not say how its pixels are written (0002,0010)")
    if syntax.is_compressed:
        _check_decoder(path, syntax)
        return
    bits = int(header.get("BitsAllocated", 0))
    declared = count * shape[0] * shape[1] * bits // 8
    raw = header.get_item("PixelData", keep_deferred=True)
    if raw.value is None:
        there = min(raw.length, path.stat().st_size - raw.value_tell)
    else:
        there = len(raw.value)
    if there < declared:
        raise ValueError(
            f"{path}: its header declares {declared} bytes of pixels, it holds {there}"
        )


def _check_decoder(path, syntax):
    pixels = package("pydicom.pixels", "a DICOM file")
    try:
        decoder = pixels.get_decoder(syntax)
        missing = (
            "" if decoder.is_available else "; ".join(decoder.missing_dependencies)
        )
    except NotImplementedError:
        missing = "pydicom knows none"
    if missing:
        raise ValueError(
            f"{path}: compressed as {syntax.name}, for which no decoder is installed "
            f"({missing})"
        )


def _described(path, header, shared, own) -> dict[str, Any]:
    """Return what is said of a frame: by itself, for all frames, or on top."""

    def find(sequence, name):
        for group in (own, shared):
            inner = None if group is None else _first(group, sequence)
            if inner is not None and inner.get(name) is not None:
                return inner.get(name)
        return header.get(name)

    def numbers(sequence, name):
        value = find(sequence, name)
        try:
            return () if value is None else tuple(float(v) for v in value)
        except (TypeError, ValueError):
            raise ValueError(f"{path}: {name} is {value!r:.60}, not numbers") from None

    spacing = numbers("PixelMeasuresSequence", "PixelSpacing")
    slope, intercept = (
        find("PixelValueTransformationSequence", name)
        for name in ("RescaleSlope", "RescaleIntercept")
    )
    if slope is None and _first(header, "ModalityLUTSequence") is not None:
        raise ValueError(
            f"{path}: its values follow a table (Modality LUT Sequence), which is not "
            "read; rewrite it with rescale slope and intercept"
        )
    return dict(
        spacing=spacing if len(spacing) == 2 and min(spacing) > 0 else None,
        orientation=numbers("PlaneOrientationSequence", "ImageOrientationPatient"),
        position=numbers("PlanePositionSequence", "ImagePositionPatient"),
        slope=None if slope is None else float(slope),
        intercept=None if intercept is None else float(intercept),
    )


def _first(group, name):
    sequence = group.get(name)
    return sequence[0] if sequence else None


def _kind(header) -> str:
    uid = header.get("SOPClassUID")
    return str(getattr(uid, "name", uid) or "a DICOM file")


@functools.cache
def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _patient(header) -> str:
    name = str(header.get("PatientID", "") or "")
    return f"patient_{_hashed(name or str(header.get('StudyInstanceUID', '')))}"
