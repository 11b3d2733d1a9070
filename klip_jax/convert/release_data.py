"""Data files of the KLIP release: .npy files of a pickled dict -> one .npz.

{imgs uint8 [N, H, W] or [N, H, W, 3], labels, masks} become <group>_images, and where
they are known <group>_masks (the anomaly) and <group>_body, as `data.npz` reads them.
Labels of numbers are 0 outside, 1 body, 2 anomaly; boolean ones are the anomaly; masks
are it above 127. The group is the last word of the file's name: chaos_id.npy has the
group "id", chaos_ood_star.npy the group "star".
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from klip_jax.convert import pickles


def load(sources: Sequence) -> dict[str, np.ndarray]:
    """Return the arrays of `sources`, .npy files, named after their groups.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if one is broken, wants to execute something, or holds no images.
    """
    arrays = {}
    for source in map(pathlib.Path, sources):
        group = source.stem.split("_")[-1]
        if f"{group}_images" in arrays:
            raise ValueError(f"{source}: a second group {group!r}; rename the file")
        for name, array in convert(pickles.load(source), source).items():
            arrays[f"{group}_{name}"] = array
    return arrays


def convert(content, source="") -> dict[str, np.ndarray]:
    """Return images, masks and body of a dict of the release.

    Raises:
      ValueError: if it holds no images, or masks of another size.
    """
    images = content.get("imgs") if isinstance(content, dict) else None
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise ValueError(f"{source}: holds no dict with 'imgs' of uint8")
    if images.ndim not in (3, 4):
        raise ValueError(f"{source}: imgs must be [N, H, W(, 3)], got {images.shape}")
    result = {"images": images}
    labels, masks = content.get("labels"), content.get("masks")
    if labels is not None:
        is_bool = np.asarray(labels).dtype == bool
        result["masks"] = np.asarray(labels) > (0 if is_bool else 1)
        if not is_bool:
            result["body"] = np.asarray(labels) > 0
    elif masks is not None:
        result["masks"] = np.asarray(masks) > 127
    for name, array in result.items():
        if array.shape[:3] != images.shape[:3] or (name != "images" and array.ndim > 3):
            raise ValueError(
                f"{source}: {name} of {array.shape} for images of {images.shape}"
            )
    return result
