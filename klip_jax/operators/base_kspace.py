"""Which columns of k-space a Cartesian scan keeps.

The columns |k| <= c // 2 are always kept, c = round(centre * W); the others follow one
of `PATTERNS`, see `mri.Cartesian`; or they are those that a scanner measured.

`centred` k-space is that of MRI files (fastMRI, ISMRMRD): frequency 0 at index n // 2,
and so is the origin of the image, K = shift F unshift x. Without, both are at index 0.
"""

import os
import pathlib
from typing import Any

import numpy as np

PATTERNS = ("pairs", "random", "equispaced")


def kept_lines(
    width: int, acceleration: float, centre: float, seed: int, pattern: str
) -> np.ndarray:
    """Return the sorted kept columns in FFT order."""
    if acceleration < 1 or not 0 <= centre <= 1:
        raise ValueError(
            f"acceleration={acceleration}, centre={centre}: need acceleration >= 1 "
            "and centre in [0, 1]"
        )
    if pattern not in PATTERNS:
        raise ValueError(f"pattern={pattern!r}: must be one of {PATTERNS}")
    budget = round(width / acceleration)
    half = round(centre * width) // 2
    kept = np.unique(np.arange(-half, half + 1) % width)
    if len(kept) > budget:
        raise ValueError(
            f"centre={centre} keeps {len(kept)} of {width} columns, the acceleration "
            f"allows {budget}: must not exceed it; lower one of the two"
        )
    if pattern == "equispaced":
        more = _equispaced(width, width / acceleration - len(kept), len(kept))
        return np.union1d(kept, more)
    rng = np.random.default_rng(seed)
    if pattern == "random":
        rest = rng.permutation(np.setdiff1d(np.arange(width), kept))
        return np.union1d(kept, rest[: budget - len(kept)])
    for k in rng.permutation(np.arange(half + 1, width // 2 + 1)):
        pair = np.unique([k, -k % width])  # one column where k is its own mirror
        if len(kept) + len(pair) <= budget:
            kept = np.append(kept, pair)
    return np.sort(kept)


def measured_lines(lines: Any, shape: tuple[int, int], centred: bool) -> np.ndarray:
    """Return the columns that were measured, in FFT order of k, listed as y has them.

    Args:
      lines: their indices; or a mask of columns [W], or of k-space [H, W], non-zero
        where it was measured; or an .npy or .npz file of one of these.
      shape: (H, W).
      centred: whether they count in centred k-space.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if they are no columns of k-space, or one occurs twice.
    """
    width, where = shape[1], "lines"
    if isinstance(lines, str | os.PathLike):
        where, lines = str(lines), read_array(lines)
    lines = np.asarray(lines)
    if lines.ndim == 2:
        if lines.shape != shape or (lines != lines[:1]).any():
            raise ValueError(
                f"{where}: a mask of {lines.shape} must be {shape} and of whole columns"
                "; transpose it, or use mri_noncartesian"
            )
        lines = lines[0]
    if lines.dtype == bool or (
        lines.shape == (width,) and np.isin(lines, (0, 1)).all()
    ):
        if lines.shape != (width,):
            raise ValueError(f"{where}: a mask of {lines.shape} must be ({width},)")
        lines = np.flatnonzero(lines)
    whole = lines.ndim == 1 and lines.size and (lines == np.round(lines)).all()
    if (
        not whole
        or len(np.unique(lines % width)) < len(lines)
        or abs(lines).max() >= width
    ):
        raise ValueError(
            f"{where}: must be indices of columns, each once, between {1 - width} and "
            f"{width - 1}, or a mask of {width}"
        )
    return (lines.astype(int) - (width // 2 if centred else 0)) % width


def read_array(path: Any) -> np.ndarray:
    """Return the array of an .npy file, or the only one of an .npz file.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is broken, or holds several.
    """
    path = pathlib.Path(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            (name,) = loaded.files
            return loaded[name]
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not one array in .npy or .npz ({error})") from None


def as_measured(
    kspace: np.ndarray, lines: np.ndarray, shape: tuple[int, ...], centred: bool
) -> np.ndarray:
    """Return complex k-space [..., H, kept or W] as the operator's y [..., H, kept, 2].

    Args:
      kspace: of the kept columns; or all columns, of which the kept ones are taken.
      lines: the kept columns, in FFT order.
      shape: (H, W).
      centred: whether the columns of whole k-space count from -(W // 2).
    """
    if kspace.shape[-1] == shape[1] != len(lines):
        kspace = kspace[..., (lines + (shape[1] // 2 if centred else 0)) % shape[1]]
    return np.stack([kspace.real, kspace.imag], -1)


def _equispaced(width: int, more: float, kept: int) -> np.ndarray:
    """Return about `more` columns beside the `kept` central ones, in FFT order."""
    if more <= 0:
        return np.arange(0)
    spacing = (width - kept) / more
    column = np.around(np.arange(round(spacing) // 2, width - 1, spacing))
    return (column.astype(int) - width // 2) % width
