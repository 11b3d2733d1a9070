"""Measurements in a file: .npz, .npy, HDF5 or MATLAB, told by its first bytes.

What is measured is called `y`; a file with one array has no need of a name. k-space in
fastMRI's layout, `kspace` [slices(, coils), H, W], complex, k = 0 in the middle, is `y`
as it is: an operator of MRI with `centred=True` takes its lines, `measured`. They are
those of the file's `mask` [W], true where a line was measured.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from klip_jax.data import base_hdf5
from klip_jax.data.base_npz import read_arrays

_NAMES = ("y", "ids", "noise_std")


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file of measurements; never a pickle.

    Returns:
      {name: array}: `y`, and `ids` and others that the file has; with k-space of
      fastMRI's layout `centred_mask` [W].

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is broken or of another kind, or several arrays and none called
        y are in it; if k-space has lines of zeros and no mask, or that of another.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such measurements")
    with path.open("rb") as stream:
        first = stream.read(128)
    if first.startswith(b"\x93NUMPY"):
        return {"y": _npy(path)}
    if first.startswith(b"MATLAB") or path.suffix.lower() == ".mat":
        return _named(base_hdf5.read_matlab(path), path)
    if first.startswith(base_hdf5.HDF5):
        with base_hdf5.opened(path) as file:
            arrays = {
                name: base_hdf5.whole(base_hdf5.dataset(file, name), f"{path}, {name}")
                for name in base_hdf5.names(file)
                if name in (*_NAMES, "kspace", "mask") or len(file) == 1
            }
            known = base_hdf5.names(file)
        if "kspace" in arrays and "y" not in arrays:
            kspace, mask = arrays.pop("kspace"), arrays.pop("mask", None)
            kept = _measured_lines(kspace, mask, str(path))
            return {"y": kspace, "centred_mask": kept, **arrays}
        return _named(arrays, path, known)
    if first.startswith(b"PK\x03\x04"):
        return read_arrays(path)
    raise ValueError(
        f"{path}: no file of measurements by its first bytes; .npz, .npy, .h5 and .mat "
        "are read"
    )


def _measured_lines(kspace, mask, where):
    """Return [W]; refuses another form, and lines of zeros that no mask speaks of."""
    if kspace.ndim not in (2, 3, 4) or kspace.dtype.kind != "c":
        raise ValueError(
            f"{where}: kspace is {kspace.dtype} {kspace.shape}; it must be complex, "
            "[slices, H, W] or [slices, coils, H, W]"
        )
    width = kspace.shape[-1]
    empty = ~kspace.reshape(-1, width).any(0)
    if mask is None and empty.any():
        raise ValueError(
            f"{where}: {int(empty.sum())} of {width} lines of k-space are 0 and there "
            "is no array 'mask' that says which were measured; add it, [W]"
        )
    if mask is None:
        return ~empty
    kept = np.ravel(mask).astype(bool)
    if kept.shape != (width,):
        raise ValueError(f"{where}: mask {kept.shape} for {width} lines")
    if (kept & empty).any():
        first = int(np.flatnonzero(kept & empty)[0])
        raise ValueError(
            f"{where}: line {first} of k-space is 0, but was measured by the mask; is "
            "it that of another file?"
        )
    return kept


def _npy(path):
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a whole, plain .npy file ({error})") from None


def _named(arrays, path, known=None):
    if "y" in arrays:
        return arrays
    if len(arrays) == 1:
        return {"y": next(iter(arrays.values()))}
    has = sorted(arrays if known is None else known)
    raise ValueError(f"{path}: no array 'y'; it has {has}")


def check_lines(mask: Bool[np.ndarray, " w"], operator: object, where: str) -> None:
    """Check that a scanner takes centred k-space, and the lines that were measured.

    Args:
      mask: true where a line was, k = 0 in the middle.
      operator: the scanner; one without `lines` is not asked.
      where: the mask is, for the message.

    Raises:
      ValueError: if it does not, naming the settings.
    """
    lines = getattr(operator, "lines", None)
    if lines is None:
        return
    width = len(mask)
    kept = (np.flatnonzero(mask) - width // 2) % width
    same = set(np.asarray(lines).tolist()) == set(kept.tolist())
    if not same or not getattr(operator, "centred", False):
        raise ValueError(
            f"{where}: {len(kept)} of {width} lines were measured, k = 0 in the "
            f"middle; the operator has {np.size(lines)}, others or in another order; "
            "save the mask as .npy and give operator.lines=FILE and operator."
            "centred=True"
        )
