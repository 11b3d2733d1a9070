"""Healthy images that neither a prior was trained on nor a test set holds, for laws.

In a random order that is always the same, drawn as the test sets were, so that they are
exchangeable with their healthy images. Near-duplicates of a slice and pictures of one
person are told as patients. Of brains there are none: all patients of the test split
are in the test set, and the training patients that the prior has not seen are seven, of
one hospital.
"""

import dataclasses

import numpy as np

from klip_jax.data import npz
from klip_jax.data.base import ImageSet
from klip_jax.data.base_npz import array_shapes, path_of, read_arrays
from klip_jax.phantoms import phantom_set

PHANTOMS = 77003
"""Seed of anatomies that nothing else has."""
SAME = 0.9  # of the pixels of a test image with a lesion are those of its original


def phantoms(*, first: int = 0, count: int) -> ImageSet:
    """Return phantoms of a seed of their own."""
    made = phantom_set.load(groups=("id",), per_group=first + count, seed=PHANTOMS)
    return made.take(np.arange(first, first + count))


def slices(*, first: int = 0, count: int, root: str = "") -> ImageSet:
    """Return slices of the test split that abdomen_ood_64 was not made from.

    Streaks change every pixel: the originals of theirs may be among these.
    """
    files = "abdomen_ct_64.npz", "abdomen_ood_64.npz"
    greys = dict(root=root, offset=50.0, scale=205.0)
    return _unused(files, "near_dup_group", greys, first, count)


def faces(*, first: int = 0, count: int, root: str = "") -> ImageSet:
    """Return faces of the test split that faces_ood_64 was not made from."""
    files = "faces_gray_64.npz", "faces_ood_64.npz"
    oval = (0.53, 0.5, 0.4, 0.31)  # as in configs/faces.py
    return _unused(files, "identity", dict(root=root, oval=oval), first, count)


def _unused(files, groups, greys, first, count) -> ImageSet:
    """Return images of the first file's test split that are not in the second.

    Test sets drew images, not groups of them: so does this. Without all groups that
    they have drawn from, the small groups would be left, which are other images.
    """
    whole, tests = (path_of(greys["root"], file) for file in files)
    arrays = read_arrays(whole, ["images", "split", groups])
    test = np.flatnonzero(arrays["split"] == 1)
    pixels = arrays["images"][test].reshape(len(test), -1)
    used = np.zeros(len(test), bool)
    names = [name for name in array_shapes(tests) if name.endswith("_images")]
    for images in read_arrays(tests, names).values():
        for image in images.reshape(len(images), -1):
            share = (pixels == image).mean(1)
            used[share.argmax()] |= share.max() >= SAME
    held = npz.load(file=files[0], split="test", **greys)
    order = np.random.default_rng(0).permutation(np.flatnonzero(~used))
    chosen = order[first : first + count]
    if len(chosen) < count:
        raise ValueError(f"there are {len(order)} such images, not {first + count}")
    group = arrays[groups][test[chosen]]
    patients = tuple(str(name) for name in group)
    return dataclasses.replace(held.take(chosen), patients=patients)
