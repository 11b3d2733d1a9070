"""Healthy images that neither a prior was trained on nor a test set holds, for laws.

In a random order that is always the same, whole groups together: near-duplicates of a
slice, pictures of one person, slices of one patient. So any first part of them and the
rest share none, and neither do they and the test sets.
"""

import dataclasses

import numpy as np

from klip_jax.data import npz
from klip_jax.data.base import ImageSet
from klip_jax.data.base_npz import path_of, read_arrays
from klip_jax.phantoms import phantom_set

PHANTOMS = 77003
"""Seed of anatomies that nothing else has."""
SAME = 0.9  # of the pixels of a test image with a lesion are those of its original


def phantoms(*, first: int = 0, count: int) -> ImageSet:
    """Return phantoms of a seed of their own."""
    made = phantom_set.load(groups=("id",), per_group=first + count, seed=PHANTOMS)
    return made.take(np.arange(first, first + count))


def slices(*, first: int = 0, count: int, root: str = "") -> ImageSet:
    """Return slices of the test split unlike all that abdomen_ood_64 was made from.

    Streaks change every pixel: the originals of theirs may be among these.
    """
    files = "abdomen_ct_64.npz", "abdomen_ood_64.npz"
    greys = dict(root=root, offset=50.0, scale=205.0)
    return _unlike(files, "near_dup_group", greys, first, count)


def faces(*, first: int = 0, count: int, root: str = "") -> ImageSet:
    """Return faces of the test split, of people whom faces_ood_64 does not show."""
    files = "faces_gray_64.npz", "faces_ood_64.npz"
    oval = (0.53, 0.5, 0.4, 0.31)  # as in configs/faces.py
    return _unlike(files, "identity", dict(root=root, oval=oval), first, count)


def brains(*, first: int = 0, count: int, root: str = "") -> ImageSet:
    """Return tumour-free slices of training patients that the prior was not shown.

    Seven, of one hospital: every patient of the test split is in the test set.
    """
    part = dict(split="train", part=(0.9, 1.0), healthy="mask_area_256")
    part |= dict(shrink=2, inside=0.1)  # as in configs/brain_mri.py
    held = npz.load(file="brain_mri_lgg_128.npz", root=root, **part)
    return _taken(held, np.array(held.patients), first, count)


def _unlike(files, groups, greys, first, count) -> ImageSet:
    whole, tests = (path_of(greys["root"], file) for file in files)
    arrays = read_arrays(whole, ["images", "split", groups])
    test = np.flatnonzero(arrays["split"] == 1)
    group = arrays[groups][test]
    pixels = arrays["images"][test].reshape(len(test), -1)
    taken = set()
    names = [n for n in np.load(tests).files if n.endswith("_images")]
    for images in read_arrays(tests, names).values():
        for image in images.reshape(len(images), -1):
            share = (pixels == image).mean(1)
            if share.max() >= SAME:
                taken.add(int(group[share.argmax()]))
    held = npz.load(file=files[0], split="test", **greys)
    free = np.flatnonzero(~np.isin(group, sorted(taken)))
    return _taken(held.take(free), group[free], first, count)


def _taken(images: ImageSet, groups, first, count) -> ImageSet:
    """Return images `first` to `first + count` in random order of their groups."""
    rng = np.random.default_rng(0)
    names, own = np.unique(groups, return_inverse=True)
    order = np.lexsort((rng.permutation(len(own)), rng.permutation(len(names))[own]))
    if len(order) < first + count:
        raise ValueError(f"there are {len(order)} such images, not {first + count}")
    chosen = order[first : first + count]
    patients = tuple(str(groups[i]) for i in chosen)
    return dataclasses.replace(images.take(chosen), patients=patients)
