"""The numbers of every image and detector of a benchmark: one parquet table each.

A table is {column: array [rows]}, a row an image and detector. From it alone come the
tables of results/, without images or sampling.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.ndimage import binary_dilation

from klip_jax.data.base import ImageSet
from klip_jax.files import write_atomically
from lab.aurocs import localizations

FOLDER = Path(__file__).resolve().parent.parent / "scores"
NAMES = "image_id", "group", "patient", "detector"
NUMBERS = "localization", "score", "p_value", "pixels", "contrast"
COLUMNS = (*NAMES, *NUMBERS, "network_calls")
Table = dict[str, np.ndarray]


def path_of(benchmark: str) -> Path:
    """Return where the table of a benchmark is kept."""
    return FOLDER / f"{benchmark}.parquet"


def read(path: Path) -> Table:
    """Read a table."""
    columns = pq.read_table(path, columns=list(COLUMNS)).to_pydict()
    return {name: np.array(column) for name, column in columns.items()}


def write(path: Path, table: Mapping[str, np.ndarray]) -> None:
    """Write a table, its numbers to six digits."""
    columns = {name: np.asarray(table[name]) for name in COLUMNS}
    for name in NUMBERS:
        columns[name] = np.array([float(f"{v:.6g}") for v in columns[name]])
    buffer = io.BytesIO()
    small = dict(compression="zstd", compression_level=19)
    few = [name for name in COLUMNS if name not in NUMBERS]
    pq.write_table(pa.table(columns), buffer, use_dictionary=few, **small)
    write_atomically(path, buffer.getvalue())


def rows(
    images: ImageSet,
    detector: str,
    network_calls: int,
    scores: Sequence[float],
    *,
    heatmaps: np.ndarray | None = None,
    p_values: Sequence[float] | None = None,
    block: int = 4,
) -> Table:
    """Return the rows of one detector; what is not known is NaN.

    Args:
      images: of the benchmark [N], with what is known of them.
      detector: its name in the tables.
      network_calls: an image, those of the posterior samples too where it sees them.
      scores: [N].
      heatmaps: [N, H, W].
      p_values: [N], by the law of the model's own draws.
      block: side of a block, pixels.
    """
    n = len(images)
    pixels, contrast = sizes(images)
    missing = np.full(n, np.nan)
    columns = (
        images.ids,
        images.groups,
        images.patients or images.ids,
        [detector] * n,
        missing if heatmaps is None else localizations(heatmaps, images, block),
        scores,
        missing if p_values is None else p_values,
        pixels,
        contrast,
        [network_calls] * n,
    )
    return {k: np.asarray(v) for k, v in zip(COLUMNS, columns, strict=True)}


def joined(tables: Sequence[Table]) -> Table:
    """Return the rows of several tables as one."""
    return {k: np.concatenate([table[k] for table in tables]) for k in COLUMNS}


def replaced(old: Table, new: Table) -> Table:
    """Return a table with the rows of some detectors computed anew.

    Raises:
      ValueError: if they are of other images.
    """
    ids = [sorted({*table["image_id"]}) for table in (old, new)]
    if ids[0] != ids[1]:
        raise ValueError(
            f"the table is of {len(ids[0])} images, other ones than these "
            f"{len(ids[1])}; compute it whole, with --recompute"
        )
    keep = ~np.isin(old["detector"], new["detector"])
    return joined([where(old, keep), new])


def where(table: Table, keep: np.ndarray) -> Table:
    """Return some rows."""
    return {k: v[keep] for k, v in table.items()}


def detectors(table: Table) -> list[str]:
    """Return the names of the detectors in their order."""
    return list(dict.fromkeys(table["detector"].tolist()))


def of(table: Table, detector: str) -> Table:
    """Return the rows of one detector."""
    return where(table, table["detector"] == detector)


def sizes(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Return how many pixels each anomaly has and how much brighter it is than around.

    Around: three pixels more on every side. NaN where there is no mask.
    """
    if images.masks is None:
        return (np.full(len(images), np.nan),) * 2
    pixels = images.masks.sum((1, 2)).astype(float)
    contrast = np.full(len(pixels), np.nan)
    for i in np.flatnonzero(pixels):
        image, mask = images.images[i].mean(-1), images.masks[i]
        around = binary_dilation(mask, iterations=3) & ~mask
        contrast[i] = image[mask].mean() - image[around].mean()
    return pixels, contrast
