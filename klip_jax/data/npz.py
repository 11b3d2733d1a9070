"""Image sets in .npz files: plain arrays, never a pickle.

`load`: one array `images`, all in-distribution, with `split` (0 train / 1 test),
`masks` and `patient` where they are known; or one array a group, `<group>_images`, with
`<group>_masks`, `<group>_eligible`, `<group>_body`, `<group>_patient`. `load_arrays`:
groups that lie in different files. Grey values become (grey - offset) / scale.
"""

import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from scipy.ndimage import binary_fill_holes

from klip_jax.data.base import ImageSet, data_root, join, scaled


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
      offset, scale: grey values that become 0, and the range that becomes 1.
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
      ValueError: if it is truncated, lacks an array, has pixels that are not finite or
        fall outside [0, 1], or sides that `shrink` does not divide.
    """
    path = _find(root, file)
    arrays = _shrunk(read_arrays(path), shrink, path)
    part = tuple(part)
    only = {"split": split, "healthy": healthy, "part": part != (0, 1) and part}
    for name, value in only.items():
        if groups and value:
            raise ValueError(f"data.{name}={value!r} is for `images`, not for groups")
    if groups:
        found = _grouped(arrays, path, groups, per_group, offset, scale)
    else:
        found = _plain(arrays, path, per_group, split, part, healthy, offset, scale)
    if inside is None and not oval:
        return found
    shape = found.images.shape[:-1]
    body = _ellipse(shape, oval) if oval else _filled(found.images, inside)
    return _with_body(found, body)


def load_arrays(
    *,
    groups: Mapping[str, tuple],
    root: str = "",
    per_group: int = 0,
    offset: float = 0.0,
    scale: float = 255.0,
) -> ImageSet:
    """Read groups of images that lie in different files, without masks.

    Args:
      groups: {group: (file, name of its array of images)}, "id" for in-distribution;
        (file, name, offset, scale) where the greys are not those of the others.
      root: folder; default $KLIP_DATA, else ../shared/data.
      per_group: so many images of each, evenly spaced, because files are often sorted
        by class; 0 for all.
      offset, scale: grey values that become 0, and the range that becomes 1.

    Returns:
      An `ImageSet` with images [N, H, W, C] in [0, 1].

    Raises:
      FileNotFoundError: if a file is absent.
      ValueError: if one is truncated, lacks the array, has fewer images, or has pixels
        that are not finite or fall outside [0, 1].
    """
    parts = []
    for group, (file, name, *greys) in groups.items():
        if len(greys) not in (0, 2):
            raise ValueError(
                f"data.groups.{group}: give (file, array) or (file, array, offset, "
                f"scale), got {(file, name, *greys)}"
            )
        path = _find(root, file)
        arrays = read_arrays(path)
        if name not in arrays:
            raise ValueError(f"{path}: no array {name!r}; it has {sorted(arrays)}")
        images = arrays[name]
        if per_group > len(images):
            raise ValueError(
                f"data.per_group={per_group}, but {path} has {len(images)} {name}"
            )
        index = np.arange(len(images))
        if per_group:
            index = np.linspace(0, len(images) - 1, per_group).astype(int)
        ids = tuple(f"{group}_{i:05d}" for i in index)
        own = greys or (offset, scale)
        images = scaled(images[index], *own, f"{path}, {name}")
        parts.append(ImageSet(images, ids, (group,) * len(ids)))
    return join(parts)


def read_arrays(path) -> dict[str, np.ndarray]:
    """Read every array of an .npz file; ValueError if it is broken or pickled."""
    broken = (ValueError, TypeError, OSError, EOFError)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (*broken, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole, plain .npz file ({error})") from None


def _find(root, file):
    path = data_root(root) / file
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such data; set --config.data.root or the environment variable "
            "KLIP_DATA to the folder that holds it"
        )
    return path


def _plain(arrays, path, per_group, split, part, healthy, offset, scale):
    if "images" not in arrays:
        raise ValueError(f"{path}: no array 'images'; it has {sorted(arrays)}")
    if split not in ("", "train", "test"):
        raise ValueError(f"data.split must be 'train', 'test' or '', got {split!r}")
    keep = np.ones(len(arrays["images"]), bool)
    if split:
        if "split" not in arrays:
            raise ValueError(f"{path}: no array 'split', so data.split must be ''")
        keep &= arrays["split"] == (split == "test")
    if healthy:
        if healthy not in arrays:
            raise ValueError(f"{path}: no array {healthy!r}; it has {sorted(arrays)}")
        keep &= arrays[healthy] == 0
    patients = arrays.get("patient")
    index = _part(np.flatnonzero(keep), patients, part)
    index = index[:per_group] if per_group else index
    images = scaled(arrays["images"][index], offset, scale, str(path))
    ids = tuple(f"{path.stem}_{i:05d}" for i in index)
    if patients is not None:
        patients = tuple(str(patients[i]) for i in index)
    masks = arrays["masks"][index] > 0 if "masks" in arrays else None
    return ImageSet(images, ids, ("id",) * len(ids), masks, patients=patients)


def _part(index, patients, part):
    """Keep the images of the patients between two shares of all, in order."""
    low, high = part
    if not 0 <= low < high <= 1:
        raise ValueError(f"data.part={part}: give shares with 0 <= first < last <= 1")
    names = index if patients is None else patients[index]
    _, first, own = np.unique(names, return_index=True, return_inverse=True)
    share = np.argsort(np.argsort(first))[own] / max(1, len(first))
    return index[(low <= share) & (share < high)]


def _shrunk(arrays, shrink, path):
    """Average images and masks, the arrays of three axes and more, over squares."""
    if shrink < 1:
        raise ValueError(f"data.shrink={shrink}: the side of a square, at least 1")
    if shrink == 1:
        return arrays
    found = dict(arrays)
    for name, array in arrays.items():
        if array.ndim < 3:
            continue
        n, height, width, *channels = array.shape
        if height % shrink or width % shrink:
            raise ValueError(
                f"{path}: {name} is {height}x{width}, which data.shrink={shrink} does "
                "not divide"
            )
        squares = n, height // shrink, shrink, width // shrink, shrink, *channels
        mean = array.reshape(squares).mean((2, 4), dtype=np.float32)
        picture = name == "images" or name.endswith("_images")
        found[name] = mean if picture else mean >= 0.5
    return found


def _filled(images, lowest):
    """The pixels of [N, H, W, C] that reach `lowest`, and the holes among them."""
    bright = images.max(-1) >= lowest
    return np.stack([binary_fill_holes(image) for image in bright])


def _ellipse(shape, oval):
    """The pixels [N, H, W] whose centres lie in an upright ellipse."""
    if len(oval) != 4 or not min(oval) > 0:
        raise ValueError(f"data.oval={oval}: give centre and half axes, 4 numbers > 0")
    row, column, high, wide = oval
    y, x = ((np.arange(n) + 0.5) / n for n in shape[1:])
    inside = np.hypot((y[:, None] - row) / high, (x - column) / wide) <= 1
    return np.broadcast_to(inside, shape)


def _with_body(found, body):
    """Fill in what the file does not say: body, and the eligible tissue in it."""

    def known(pixels):
        return body if pixels is None or not pixels.any() else pixels

    return found._replace(body=known(found.body), eligible=known(found.eligible))


def _grouped(arrays, path, groups, per_group, offset, scale):
    known = sorted(k[: -len("_images")] for k in arrays if k.endswith("_images"))
    missing = [group for group in groups if group not in known]
    if missing:
        raise ValueError(f"{path}: no group {missing[0]!r}; it has {known}")
    parts = []
    for group in groups:
        images = arrays[f"{group}_images"][: per_group or None]
        n = len(images)

        def pixels(name, group=group, shape=images.shape[:3], n=n):
            found = arrays.get(f"{group}_{name}")
            found = np.zeros(shape, bool) if found is None else found[:n] > 0
            if found.shape != shape:
                raise ValueError(
                    f"{path}: {group}_{name} is {found.shape}, but the images are "
                    f"{shape}"
                )
            return found

        ids = tuple(f"{group}_{i:04d}" for i in range(n))
        patient = arrays.get(f"{group}_patient")
        patients = ids if patient is None else tuple(str(p) for p in patient[:n])
        parts.append(
            ImageSet(
                scaled(images, offset, scale, f"{path}, {group}_images"),
                ids,
                (group,) * n,
                *map(pixels, ("masks", "eligible", "body")),
                patients,
            )
        )
    return join(parts)
