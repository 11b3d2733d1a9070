"""What is looked at: images to be measured, measurements, or draws of the model."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax.data import measurements
from klip_jax.data.base import ImageSet, data_root
from klip_jax.keys import image_keys, words
from klip_jax.spelling import short


class Batch(NamedTuple):
    """Some inputs; None where they are not known.

    Attributes:
      key: of each, from its name.
      image: [n, H, W, C]; None where it is drawn, or only measurements are known.
      y: measurements [n, *operator.out_shape]; None where they are simulated.
      eligible: where an anomaly could be [n, H, W].
    """

    key: Any
    image: Any = None
    y: Any = None
    eligible: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs by name.

    Attributes:
      ids, groups, patients: N names each; "" is unknown.
      read: (indices [n]) -> `Batch`; nothing is read before.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    patients: tuple[str, ...]
    read: Callable[[np.ndarray], Batch]

    def __len__(self) -> int:
        return len(self.ids)


def checked(images: ImageSet, where: str) -> ImageSet:
    """Return the same set, whose pixels are checked whenever they are read."""

    def reader(index):
        loaded = images.read(index)
        x, shape = loaded.images, (len(index), *images.shape)
        if x.shape != shape:
            raise ValueError(f"{where}: images {x.shape} were read, not {shape}")
        # A comparison with NaN is False.
        bad = np.flatnonzero(~((x >= 0) & (x <= 1)).reshape(len(index), -1).all(1))
        if bad.size:
            raise ValueError(
                f"{where}: image {short(images.ids[index[bad[0]]])} has pixels "
                "that are NaN or outside [0, 1]"
            )
        return loaded

    return dataclasses.replace(images, reader=reader)


def of_images(images: ImageSet, seed: int) -> Inputs:
    """Return the images of a set."""

    def read(index):
        loaded = images.read(index)
        key = image_keys(seed, [images.ids[i] for i in index])
        return Batch(key, loaded.images, None, loaded.eligible)

    patients = images.patients or ("",) * len(images)
    return Inputs(images.ids, images.groups, patients, read)


def of_measurements(y: np.ndarray, ids: tuple[str, ...], seed: int) -> Inputs:
    """Return measurements [N, *operator.out_shape] under their names."""

    def read(index):
        return Batch(image_keys(seed, [ids[i] for i in index]), y=y[index])

    return Inputs(ids, ("",) * len(ids), ("",) * len(ids), read)


def of_draws(count: int, seed: int) -> Inputs:
    """Return `count` draws of the model; the m-th is one however many there are."""
    root = jax.random.fold_in(jax.random.key(seed), words("law")[0])

    def read(index):
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        return Batch(fold(root, jnp.asarray(index, jnp.uint32)))

    ids = tuple(f"draw_{m:05d}" for m in range(count))
    return Inputs(ids, ("id",) * count, ("",) * count, read)


def load_measurements(data: Mapping[str, Any], operator):
    """Read the file that data.measurements names.

    Args:
      data: settings; the file is looked for as it is named, and under data.root.
      operator: that measured.

    Returns:
      (y [N, *operator.out_shape], names).

    Raises:
      FileNotFoundError, ValueError: in one sentence.
    """
    path = Path(data["measurements"])
    path = path if path.is_file() else data_root(data.get("root", "")) / path
    if not path.is_file():
        raise FileNotFoundError(f"{data['measurements']}: no such measurements")
    arrays = measurements.read(path)
    if "y" not in arrays:
        raise ValueError(f"{path}: no array 'y'; it has {sorted(arrays)}")
    y, dtype = arrays["y"], np.dtype(operator.out_dtype)
    if "centred_mask" in arrays:
        measurements.check_lines(arrays["centred_mask"], operator, str(path))
    if y.dtype.kind == "c" and hasattr(operator, "measured"):  # (Re, Im) of MRI
        y = operator.measured(y)
    if y.dtype.kind not in ("iufc" if dtype.kind == "c" else "iuf"):
        raise ValueError(f"{path}: y is {y.dtype}, but the operator measures {dtype}")
    y = y.astype(dtype)
    y = y[None] if y.shape == operator.out_shape else y
    if y.shape[1:] != operator.out_shape:
        raise ValueError(
            f"{path}: y is {y.shape}, but the operator of the config measures "
            f"[N, {', '.join(map(str, operator.out_shape))}]; check its geometry"
        )
    if not np.isfinite(y).all():
        raise ValueError(f"{path}: y holds values that are NaN or infinite")
    ids = tuple(f"y_{i:04d}" for i in range(len(y)))
    if "ids" in arrays:
        ids = tuple(str(name) for name in arrays["ids"].ravel())
    if len(ids) != len(y):
        raise ValueError(f"{path}: {len(y)} measurements but {len(ids)} ids")
    check_ids(ids, str(path))
    return y, ids


def check_ids(ids: tuple[str, ...], where: str) -> None:
    """Raise a ValueError unless there are names, each of its own."""
    if not ids:
        raise ValueError(f"{where}: there is nothing to look at")
    seen = set()
    for name in ids:
        if name in seen:
            raise ValueError(
                f"{where}: image id {short(name)} occurs twice; give every "
                "image its own"
            )
        seen.add(name)
