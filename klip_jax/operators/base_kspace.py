"""Which columns of k-space a Cartesian scan keeps.

The columns |k| <= c // 2 are always kept, c = round(centre * W); the others follow one
of `PATTERNS`, see `mri.Cartesian`.
"""

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


def _equispaced(width: int, more: float, kept: int) -> np.ndarray:
    """Return about `more` columns beside the `kept` central ones, in FFT order."""
    if more <= 0:
        return np.arange(0)
    spacing = (width - kept) / more
    column = np.around(np.arange(round(spacing) // 2, width - 1, spacing))
    return (column.astype(int) - width // 2) % width
