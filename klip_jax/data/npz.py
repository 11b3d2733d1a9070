"""Image sets in .npz files: plain arrays, never a pickle.

`load`: one array `images`, all in-distribution, with `split` (0 train / 1 test),
`masks`, `patient` and `labels` where they are known; or one array a group,
`<group>_images`, with `<group>_masks`, `<group>_eligible`, `<group>_body`,
`<group>_patient`, and the classes `id_labels`. `load_arrays`: groups that lie in
different files, the classes beside the images of "id". Grey values become
(grey - offset) / scale; they stay in memory as the file has them, and only arrays that
were asked for are read.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from klip_jax.data.base import REGIONS, Images, ImageSet, count_of
from klip_jax.data.base_join import join
from klip_jax.data.base_npz import (
    array_shapes,
    labelled,
    labels_of,
    path_of,
    read_arrays,
    spaced,
)
from klip_jax.data.transforms import (
    Greys,
    check_shrink,
    ellipse,
    filled,
    mask_of,
    shrunk,
)


def load(
    *,
    file: str,
    root: str = "",
    groups: tuple[str, ...] = (),
    per_group: int = 0,
    split: str = "",
    part: tuple[float, float] = (0.0, 1.0),
    offset: float = 0.0,
    scale: float = 255.0,
    clip: bool = False,
    label: int = 0,
    shrink: int = 1,
    healthy: str = "",
    inside: float | None = None,
    oval: tuple[float, ...] = (),
) -> ImageSet:
    """Read an image set.

    Args:
      file: name of the .npz file under `root`.
      root: folder; default $KLIP_DATA, else ../shared/data.
      groups: the groups to read, "id" for in-distribution; empty reads `images`.
      per_group: first so many images of each group; 0 for all.
      split: "train" or "test" to keep only that part of `images`; empty for all, and
        for groups.
      part: shares of that split, in the order of the file, between which to keep its
        patients (its images, where patients are not known); for `images` only. A prior
        trained on (0, 0.9) leaves (0.9, 1) to choose settings on.
      offset, scale, clip: grey values that become 0, and the range that becomes 1;
        see `transforms.Greys`.
      label: the value of the anomaly in masks that are labels; 0 where they are not.
      shrink: side of the squares of pixels that become one, their mean; a mask is what
        fills at least half of one.
      healthy: name of an array that is 0 for the images to keep; for `images` only.
      inside: lowest value of the body in [0, 1]; its holes are filled. Where the file
        does not say which tissue is eligible or body, this does; None leaves it open.
      oval: the body of images that are aligned, instead: an upright ellipse, the row
        and column of its centre and its half axes as shares of the sides.

    Returns:
      An `ImageSet` with images [N, H, W, C] in [0, 1].

    Raises:
      FileNotFoundError: if the file is absent.
      ValueError: if it is truncated, lacks an array, has fewer images, pixels that are
        no real numbers or fall outside [0, 1], or sides that `shrink` does not divide.
    """
    path = path_of(root, file)
    layout = _Layout(Greys(offset, scale, clip), label, shrink, inside, tuple(oval))
    whole = tuple(part) == (0, 1)
    only = {"split": split, "healthy": healthy, "part": "" if whole else tuple(part)}
    for name, value in only.items():
        if groups and value:
            raise ValueError(f"data.{name}={value!r} is for `images`, not for groups")
    shapes = array_shapes(path)
    if not groups:
        index, patients = _chosen(path, shapes, per_group, split, part, healthy)
        ids = tuple(f"{path.stem}_{i:05d}" for i in index)
        return _set(path, shapes, "", index, ids, "id", patients, layout)
    known = sorted(k[: -len("_images")] for k in shapes if k.endswith("_images"))
    if missing := [group for group in groups if group not in known]:
        raise ValueError(f"{path}: no group {missing[0]!r}; it has {known}")
    return join([_group(path, shapes, g, per_group, layout) for g in groups])


def load_arrays(
    *,
    groups: Mapping[str, Sequence],
    root: str = "",
    per_group: int = 0,
    part: tuple[float, float] = (0.0, 1.0),
    offset: float = 0.0,
    scale: float = 255.0,
    clip: bool = False,
) -> ImageSet:
    """Read groups of images that lie in different files, without masks.

    Args:
      groups: {group: (file, name of its array of images)}, "id" for in-distribution;
        (file, name, offset, scale) where the greys are not those of the others.
      root: folder; default $KLIP_DATA, else ../shared/data.
      per_group: so many images of each, evenly spaced, because files are often sorted
        by class; 0 for all.
      part: shares of each file, in its order, between which they are.
      offset, scale, clip: see `transforms.Greys`.

    Returns:
      An `ImageSet` with images [N, H, W, C] in [0, 1].

    Raises:
      FileNotFoundError: if a file is absent.
      ValueError: if one is truncated, lacks the array, has fewer images, or has pixels
        that are not finite or fall outside [0, 1].
    """
    parts = []
    for group, (file, name, *own) in groups.items():
        if len(own) not in (0, 2):
            raise ValueError(
                f"data.groups.{group}: give (file, array) or (file, array, offset, "
                f"scale), got {(file, name, *own)}"
            )
        path = path_of(root, file)
        images, where = read_arrays(path, [name])[name], f"{path}, {name}"
        index = spaced(len(images), per_group, part, where)
        ids = tuple(f"{group}_{i:05d}" for i in index)
        zero, span = own or (offset, scale)
        layout = _Layout(Greys(zero, span, clip))
        some = _stored(where, images[index], {}, ids, group, None, layout)
        beside, shapes = name.replace("images", "labels"), array_shapes(path)
        labels = labels_of(path, shapes, beside, group, len(images))
        parts.append(labelled(some, labels, index))
    return join(parts)


def _chosen(path, shapes, per_group, split, part, healthy):
    """Return the indices of `images` to read, and their patients."""
    if "images" not in shapes:
        raise ValueError(f"{path}: no array 'images'; it has {sorted(shapes)}")
    if split not in ("", "train", "test"):
        raise ValueError(f"data.split must be 'train', 'test' or '', got {split!r}")
    if split and "split" not in shapes:
        raise ValueError(f"{path}: no array 'split', so data.split must be ''")
    patient = ["patient"] if "patient" in shapes else []
    wanted = [*filter(None, ("split" if split else "", healthy)), *patient]
    arrays = read_arrays(path, wanted)
    keep = np.ones(shapes["images"][:1], bool)
    if split:
        keep &= arrays["split"] == (split == "test")
    if healthy:
        keep &= arrays[healthy] == 0
    patients = arrays.get("patient")
    index = _part(np.flatnonzero(keep), patients, part)
    where = f"this part of {path}"
    index = index[: count_of(per_group, len(index), where)]
    return index, None if patients is None else [str(patients[i]) for i in index]


def _part(index, patients, part):
    """Keep the images of the patients between two shares of all, in order."""
    low, high = part
    if not 0 <= low < high <= 1:
        raise ValueError(f"data.part={part}: give shares with 0 <= first < last <= 1")
    names = index if patients is None else patients[index]
    _, first, own = np.unique(names, return_index=True, return_inverse=True)
    share = np.argsort(np.argsort(first))[own] / max(1, len(first))
    return index[(low <= share) & (share < high)]


def _group(path, shapes, group, per_group, layout):
    where = f"{group!r} of {path}"
    count = count_of(per_group, shapes[f"{group}_images"][0], where)
    ids = tuple(f"{group}_{i:04d}" for i in range(count))
    patients, name = ids, f"{group}_patient"
    if name in shapes:
        patients = [str(p) for p in read_arrays(path, [name])[name][:count]]
    index = np.arange(count)
    return _set(path, shapes, f"{group}_", index, ids, group, patients, layout)


def _set(path, shapes, prefix, index, ids, group, patients, layout):
    """Return the images at `index` of `prefix`images of a file, with their regions."""
    whole = shapes[f"{prefix}images"]
    names = [name for name in REGIONS if prefix + name in shapes]
    for name in names:
        if shapes[prefix + name] != whole[:3]:
            raise ValueError(
                f"{path}: {prefix}{name} is {shapes[prefix + name]}, but the images "
                f"are {whole[:3]}"
            )
    arrays = read_arrays(path, [prefix + name for name in ("images", *names)])
    where = f"{path}, {prefix}images"
    images = arrays[f"{prefix}images"][index]
    labels = {"masks": layout.label}
    regions = {
        name: mask_of(arrays[prefix + name][index], labels.get(name, 0), where)
        for name in names
    }
    part = _stored(where, images, regions, ids, group, patients, layout)
    labels = labels_of(path, shapes, f"{prefix}labels", group, whole[0])
    return labelled(part, labels, index)


class _Layout(NamedTuple):
    """Settings of `load` on how pixels become images, bodies and masks."""

    greys: Greys
    label: int = 0
    shrink: int = 1
    inside: float | None = None
    oval: tuple[float, ...] = ()


def _stored(where, greys, regions, ids, group, patients, layout):
    """Return a set whose greys and regions are in memory as the file has them."""
    layout.greys.check(greys, where)
    check_shrink(greys.shape, layout.shrink, where)
    height, width = (n // layout.shrink for n in greys.shape[1:3])
    oval = ellipse((height, width), layout.oval) if layout.oval else None
    made = () if oval is None and layout.inside is None else ("eligible", "body")

    def reader(index):
        images = layout.greys.images(shrunk(greys[index], layout.shrink))
        known = {}
        if made:
            body = filled(images, layout.inside) if oval is None else oval
            known = dict.fromkeys(made, np.broadcast_to(body, images.shape[:3]))
        # What the file itself says comes first.
        for name, region in regions.items():
            known[name] = shrunk(region[index], layout.shrink) >= 0.5
        return Images(images, **known)

    fields = tuple(name for name in REGIONS if name in regions or name in made)
    shape = (height, width, *(greys.shape[3:] or (1,)))
    names = None if patients is None else tuple(patients)
    return ImageSet(ids, (group,) * len(ids), shape, reader, fields, names)
