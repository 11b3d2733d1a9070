"""Volumes of NIfTI, slice by slice, as a radiologist sees them or as they are stored.

    data=dict(name="nifti.load", file="brain.nii.gz", percentile=99.5)

In a radiological axial slice the patient's front is up and its right side is to the
left, as in DICOM; in a coronal one the head is up; in a sagittal one the head is up and
the front to the left. Slices run from the feet up, from the back to the front, and from
the right to the left.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from klip_jax.data.base import ImageSet, count_of, data_root
from klip_jax.data.base_geometry import Place
from klip_jax.data.base_nifti import number_of, slice_of, volume_of, voxels_of
from klip_jax.data.base_volume import REGIONS_INSIDE, Range, files_of, images_of
from klip_jax.data.transforms import mask_of

_ENDINGS = (".nii", ".nii.gz")


def load(
    *,
    file: str,
    root: str = "",
    plane: str = "",
    stored: bool = False,
    window: tuple[float, ...] = (),
    offset: float = 0.0,
    scale: float = 0.0,
    clip: bool = False,
    percentile: float = 0.0,
    inside: float | None = None,
    masks: str = "",
    label: int = 0,
    group: str = "",
    per_group: int = 0,
) -> ImageSet:
    """Read the slices of a volume, or of all volumes of a folder.

    Args:
      file: below `root`, or absolute; .nii, .nii.gz, or a folder of them, each of which
        is a patient.
      root: folder; default $KLIP_DATA, else ../shared/data.
      plane: "axial", "coronal" or "sagittal", or the stored axis "0", "1" or "2" that
        slices are along; empty for axial, if the voxels do not say that slices were
        taken otherwise.
      stored: rows and columns as they are stored, not as a radiologist sees them.
      window: (level, width), in Hounsfield units for CT; what lies outside is cut.
      offset, scale, clip: instead: the value that becomes 0, the range that becomes 1,
        and whether others are cut.
      percentile: instead: the one of each volume's values that becomes 1, for MRI.
      inside: lowest value of the body in [0, 1], its holes filled; None is unknown.
      masks: file, or folder of files of the same names, where the anomaly is marked;
        slices with marks are of the group "anomalous", all others "id".
      label: the value of the anomaly in masks that are labels; 0 where they are not.
      group: of all images where there are no masks; "" for unknown.
      per_group: first so many slices; 0 for all.

    Returns:
      An `ImageSet` with images [N, H, W, 1] in [0, 1]; voxels are read when asked for.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if nibabel is missing, a file is broken, not of three axes or declares
        more than it holds; sizes or spacings of several differ; the plane is not clear,
        or nothing says what is black and white.
    """
    path = data_root(root) / file
    files = files_of(path, _ENDINGS, "NIfTI", ".nii or .nii.gz")
    volumes = [volume_of(f, plane, stored) for f in files]
    _check_alike(volumes)
    settings = Range(tuple(window), offset, scale, clip, percentile)
    first = volumes[0]
    settings.check(lambda: slice_of(first, first.slices // 2), str(path))
    marks = _marks(volumes, path, data_root(root) / masks, label) if masks else None
    index = [(v, k) for v, volume in enumerate(volumes) for k in range(volume.slices)]
    index = index[: count_of(per_group, len(index), str(path))]
    groups = (group,) * len(index)
    if marks is not None:
        known = [mark(None) for mark in marks]
        groups = tuple("anomalous" if known[v][k] else "id" for v, k in index)

    @functools.cache
    def greys(v):
        own = volumes[v].file
        return settings.greys(lambda: voxels_of(own), str(own))

    def reader(some):
        chosen = [index[i] for i in some]
        return images_of(
            [slice_of(volumes[v], k) for v, k in chosen],
            [greys(v) for v, _ in chosen],
            [f"{volumes[v].file}, slice {number_of(volumes[v], k)}" for v, k in chosen],
            [False] * len(chosen),
            inside,
            None if marks is None else np.stack([marks[v](k) for v, k in chosen]),
        )

    names = [_stem(volume.file) for volume in volumes]
    known_regions = () if inside is None else REGIONS_INSIDE
    return ImageSet(
        tuple(f"{names[v]}_{number_of(volumes[v], k):04d}" for v, k in index),
        groups,
        (*first.picture, 1),
        reader,
        known_regions if marks is None else ("masks", *known_regions),
        patients=tuple(names[v] for v, _ in index),
        spacing=first.spacing,
        places=tuple(
            Place(
                str(volumes[v].file.absolute()),
                number_of(volumes[v], k),
                volumes[v].axes,
            )
            for v, k in index
        ),
    )


def _check_alike(volumes):
    first = volumes[0]
    for other in volumes:
        for words, one, two in (
            ("slices of {} pixels", first.picture, other.picture),
            ("{} mm a pixel", first.spacing, other.spacing),
        ):
            if not np.allclose(one, two, rtol=1e-3):
                raise ValueError(
                    f"{other.file}: {words.format(two)}, but {first.file.name} has "
                    f"{one}; give volumes that are alike"
                )


def _marks(
    volumes, path: Path, masks: Path, label: int
) -> list[Callable[[int | None], Bool[np.ndarray, "..."]]]:
    """Return of each volume what gives the mask of a slice, or which have any."""

    def of(volume):
        file = masks / volume.file.name if path.is_dir() else masks
        if not file.is_file():
            raise ValueError(f"{file}: no such file, but there is {volume.file}")
        other = volume_of(file, "012"[volume.axes[0][0]], True)
        if other.shape != volume.shape or not np.allclose(
            other.affine, volume.affine, atol=1e-3
        ):
            raise ValueError(
                f"{file}: {other.shape} voxels, or another affine than {volume.file}, "
                f"which has {volume.shape}; resample the mask"
            )

        def mark(k):
            marked = mask_of(voxels_of(file), label, str(file))
            if k is None:
                others = tuple(axis for axis, _ in volume.axes[1:])
                return marked.any(others)[:: volume.axes[0][1]]
            place = Place("", number_of(volume, k), volume.axes)
            return place.shown(np.take(marked, place.number, volume.axes[0][0]))

        return mark

    return [of(volume) for volume in volumes]


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
