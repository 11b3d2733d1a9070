"""Series of DICOM: CT in Hounsfield units, MRI, X-ray; single files and multi-frame.

    data=dict(name="dicom.load", folder="study/series3", window=(40, 400))

Slices are in the order of their place along the normal, whatever their files are
called. What does not belong to one series, size, spacing or depth is refused, and what
is no image is named in a warning.
"""

import functools
import itertools
import warnings
from pathlib import Path

import numpy as np

from klip_jax.data.base import ImageSet, count_of, data_root, natural
from klip_jax.data.base_dicom import Frame, frames_of, is_dicom, values_of
from klip_jax.data.base_geometry import Place
from klip_jax.data.base_volume import REGIONS_INSIDE, Range, images_of

_ORDERS = ("position", "number", "name")
_TURN = 1e-3  # of cosines of one orientation
_APART = 1e-3  # millimetres between two slices, at least
_SAMPLED = 64  # slices of a series of which a percentile is taken, at most


def load(
    *,
    folder: str,
    root: str = "",
    series: str = "",
    window: tuple[float, ...] = (),
    offset: float = 0.0,
    scale: float = 0.0,
    clip: bool = False,
    percentile: float = 0.0,
    rescale: bool = True,
    order: str = "position",
    inside: float | None = None,
    group: str = "",
    per_group: int = 0,
) -> ImageSet:
    """Read the images of a folder, its sub-folders included, or of one file.

    Args:
      folder: below `root`, or absolute; or a file.
      root: folder; default $KLIP_DATA, else ../shared/data.
      series: the UID of the series to read where there are several; "all" for all.
      window: (level, width), in Hounsfield units for CT; what lies outside is cut.
      offset, scale, clip: instead: the value that becomes 0, the range that becomes 1,
        and whether others are cut.
      percentile: instead: the one of each series' values that becomes 1, for MRI.
      rescale: by the tags of slope and intercept, which CT and files that do not tell
        their modality must have; False takes the stored values.
      order: of the slices: "position" along the normal, "number" of the instance, or
        "name" of the file.
      inside: lowest value of the body in [0, 1], its holes filled; None is unknown.
      group: of all images, "id" for in-distribution, "" for unknown.
      per_group: first so many slices; 0 for all.

    Returns:
      An `ImageSet` with images [N, H, W, 1] in [0, 1]; pixels are read when asked for.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: if pydicom is missing, files are broken, compressed without a decoder
        or in colour, or several series, sizes, spacings, orientations or depths are
        mixed; if nothing says what is black and white, tags are missing, or two slices
        lie at one place.
    """
    path = data_root(root) / folder
    if order not in _ORDERS:
        raise ValueError(f"data.order={order!r}: give one of {', '.join(_ORDERS)}")
    frames = _chosen(_all_frames(path), series, path)
    frames = _ordered(frames, order)
    frames = frames[: count_of(per_group, len(frames), str(path))]
    _check_alike(frames, rescale)
    settings = Range(tuple(window), offset, scale, clip, percentile)
    middle = frames[len(frames) // 2]
    settings.check(lambda: values_of(middle, rescale), str(path))

    @functools.cache
    def greys(uid):
        own = [frame for frame in frames if frame.series == uid]
        own = own[:: -(-len(own) // _SAMPLED)]
        return settings.greys(
            lambda: np.stack([values_of(f, rescale) for f in own]), str(path)
        )

    def reader(index):
        some = [frames[i] for i in index]
        return images_of(
            [values_of(frame, rescale) for frame in some],
            [greys(frame.series) for frame in some],
            [frame.where for frame in some],
            [frame.inverted for frame in some],
            inside,
        )

    return ImageSet(
        _names(frames, path),
        (group,) * len(frames),
        (*frames[0].shape, 1),
        reader,
        () if inside is None else REGIONS_INSIDE,
        patients=tuple(frame.patient for frame in frames),
        spacing=frames[0].spacing,
        places=tuple(Place(str(f.file.absolute()), f.number) for f in frames),
    )


def _all_frames(path: Path) -> list[Frame]:
    if path.is_file():
        return frames_of(path)
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; set --config.data.root or the environment "
            "variable KLIP_DATA to the folder that holds it"
        )
    frames, ignored = [], []
    for file in sorted(path.rglob("*"), key=lambda file: natural(str(file))):
        name = file.relative_to(path)
        if not file.is_file() or any(part.startswith(".") for part in name.parts):
            continue
        if file.name.upper() == "DICOMDIR" or not is_dicom(file):
            ignored.append(f"{name} (no DICOM file)")
            continue
        try:
            frames += frames_of(file)
        except ValueError as error:
            if "without an image" not in str(error):
                raise
            ignored.append(f"{name} ({str(error).partition(': ')[2]})")
    if ignored:
        warnings.warn(f"{path}: left out {', '.join(ignored)}", stacklevel=3)
    if not frames:
        raise ValueError(f"{path}: no DICOM file with an image in it")
    return frames


def _chosen(frames, series, path):
    counts: dict[str, int] = {}
    for frame in frames:
        counts[frame.series] = counts.get(frame.series, 0) + 1
    if series == "all":
        return frames
    if not series and len(counts) == 1:
        return frames
    if series in counts and series:
        return [frame for frame in frames if frame.series == series]
    listed = ", ".join(f"{uid or 'no UID'} ({n} images)" for uid, n in counts.items())
    raise ValueError(
        f"{path}: holds the series {listed}; say with data.series which one, or "
        '"all" for all of them'
    )


def _ordered(frames, order):
    """Return the frames series by series, in order; refuses two at one place."""
    series = list(dict.fromkeys(frame.series for frame in frames))
    ordered = []
    for uid in series:
        own = [frame for frame in frames if frame.series == uid]
        if order == "number":
            own.sort(key=lambda frame: (frame.instance, frame.number))
        elif order == "position" and len(own) > 1 and not _one_film(own):
            own = _by_place(own)
        ordered += own
    return ordered


def _one_film(own) -> bool:
    """Return whether these are the frames of one file that tells no places: a film."""
    return len({f.file for f in own}) == 1 and not any(f.position for f in own)


def _by_place(own):
    for frame in own:
        if np.isnan(frame.along):
            raise ValueError(
                f"{frame.where}: does not say where it lies (Image Position and "
                "Orientation); give data.order='number' or 'name'"
            )
    turned = np.ptp([frame.orientation for frame in own], axis=0).max()
    if turned > _TURN:
        raise ValueError(
            f"{own[0].where}: slices of the series are turned against each other; "
            "give data.order='number' and one localizer at a time"
        )
    own = sorted(own, key=lambda frame: frame.along)
    for one, other in itertools.pairwise(own):
        if other.along - one.along < _APART:
            raise ValueError(
                f"{one.where} and {other.where} lie at one place, {one.along:g} mm: "
                "several echoes, times or copies; keep one of them, or give "
                "data.order='number'"
            )
    return own


def _check_alike(frames, rescale):
    first = frames[0]
    for frame in frames:
        for name, words in (
            ("shape", "pixels"),
            ("spacing", "mm a pixel"),
            ("bits", "bits stored"),
            ("modality", "modality"),
        ):
            one, other = getattr(first, name), getattr(frame, name)
            same = one == other
            if name == "spacing" and one is not None and other is not None:
                same = np.allclose(one, other, rtol=1e-3)
            if not same:
                raise ValueError(
                    f"{frame.where}: {words} {other}, but {first.where} has {one}; "
                    "give images that are alike, one folder each"
                )
        absent = frame.slope is None or frame.intercept is None
        if rescale and frame.modality in ("CT", "") and absent:
            raise ValueError(
                f"{frame.where}: {frame.modality or 'of no modality and'} without "
                "Rescale Slope and Intercept, so its values are no Hounsfield units; "
                "give data.rescale=False to take them as they are stored"
            )


def _names(frames, path):
    """Return a name for each: its file's stem, with the folder where stems repeat."""
    files = list(dict.fromkeys(frame.file for frame in frames))
    stems = {file: file.stem for file in files}
    if len(set(stems.values())) < len(files):
        stems = {file: file.relative_to(path).as_posix() for file in files}
    many = len(frames) > len(files)
    return tuple(
        f"{stems[f.file]}_{f.number:04d}" if many else stems[f.file] for f in frames
    )
