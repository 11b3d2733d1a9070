"""What a run leaves behind: columns and arrays, written by chunks of images.

    config.json                what was run; see `klip_jax.run.claim`
    scores/part-00007.parquet  a row an image and detector of chunk 7; see `SCHEMA`
    maps.zarr                  arrays [N, ...] by name, chunked along the images:
        reconstruction/{mean,std,naive}   [N, H, W, C]
        <detector>/heatmap                [N, H, W]
        <detector>/<extra>                [N, ...]

A part is written last, by an atomic rename: it is what "done" means. It carries the
digest of its config, so that results of two configs never mix, and the sizes of its
arrays, so that a broken one is noticed when the store is opened.
"""

import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from klip_jax.files import write_atomically, write_new
from klip_jax.run import arrays as arrays_on_disk
from klip_jax.run.arrays import StoredArray, chunk_file, short

FORMAT = 2
"""Of the workdir; the first house left one file an image, and none of these."""

SCHEMA = pa.schema(
    [
        ("index", pa.int64()),  # of the image in the data
        ("image_id", pa.string()),
        ("group", pa.string()),  # "id", "" if unknown, else an anomaly
        ("patient", pa.string()),  # "" if unknown
        ("detector", pa.string()),  # its name in the config
        (
            "score",
            pa.float64(),
        ),  # bigger is odder; NaN if it or its map is not finite
        ("stderr", pa.float64()),  # NaN where the detector has none
        ("p_value", pa.float64()),  # under the model's law
        ("p_conformal", pa.float64()),  # under the healthy images
        ("misfit", pa.float64()),  # of the posterior samples; NaN without a scanner
        ("network_calls", pa.int64()),  # of the detector's look
        ("seconds", pa.float64()),  # of it
        ("posterior_seconds", pa.float64()),  # of what all detectors share
        ("first_bad_step", pa.int64()),  # of the posterior, -1 if none
    ]
)
COLUMNS = tuple(SCHEMA.names)


def read_config(folder) -> dict:
    """Read config.json of a workdir.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it is not whole, or of another format.
    """
    path = pathlib.Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no run here; start one with --mode=detect")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not whole ({short(error)}); give another --workdir"
        ) from None
    version = meta.get("format", 1) if isinstance(meta, dict) else None
    if version != FORMAT:
        raise ValueError(
            f"{folder}: made by another klip_jax (format {version!r:.20}, this "
            f"one has {FORMAT}); give another --workdir"
        )
    for name, kind in (("digest", str), ("chunk", int), ("settings", dict)):
        if not isinstance(meta.get(name), kind) or meta["chunk"] < 1:
            raise ValueError(f"{path}: {name} is broken; give another --workdir")
    return meta


def create(folder, meta: Mapping[str, Any]) -> None:
    """Write config.json of a new workdir; of two at once, exactly one succeeds.

    Args:
      folder: made if it is absent.
      meta: at least `digest` of the config and `chunk`, images a chunk.

    Raises:
      FileExistsError: if it is a workdir already.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"format": FORMAT, **meta}, indent=2) + "\n"
    write_new(folder / "config.json", text.encode())


class Store:
    """The results of a workdir, to be read and added to.

    Args:
      folder: a workdir with a config.json.

    Attributes:
      folder: the same.
      meta: config.json.

    Raises:
      FileNotFoundError: if there is no run.
      ValueError: if a part or an array is broken or of another config, naming the file
        and what to do.
    """

    def __init__(self, folder: str | pathlib.Path):
        self.folder = pathlib.Path(folder)
        self.meta: dict[str, Any] = read_config(folder)
        for chunk in self.chunks_done():
            self._check(chunk)

    @property
    def chunk_size(self) -> int:
        """Images a chunk; fixed by who claimed the workdir."""
        return self.meta["chunk"]

    def chunks_done(self) -> list[int]:
        """Return the numbers of the chunks that are finished, ascending."""
        names = (path.name for path in (self.folder / "scores").glob("part-*.parquet"))
        matches = (re.fullmatch(r"part-(\d{5,})\.parquet", name) for name in names)
        return sorted(int(match[1]) for match in matches if match)

    def is_done(self, chunk: int) -> bool:
        """Return whether `chunk` is finished."""
        return self._part(chunk).is_file()

    def write_chunk(
        self,
        chunk: int,
        rows: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        total: int,
    ) -> None:
        """Write the images of one chunk, whole or not at all.

        Args:
          chunk: its number; it holds images chunk * chunk_size and following.
          rows: every column of `SCHEMA`, a value an image and detector.
          arrays: [n, ...] by name, one entry for each of the chunk's n images; float
            (kept as float32), bool or integer.
          total: N, images of the whole run.

        Raises:
          FileNotFoundError: if the workdir was deleted meanwhile.
          ValueError: if columns or sizes do not fit.
        """
        if not (self.folder / "config.json").is_file():
            raise FileNotFoundError(f"{self.folder}: was deleted while it was run")
        first = chunk * self.chunk_size
        count = min(self.chunk_size, total - first)
        for name, array in arrays.items():
            if len(array) != count:
                raise ValueError(
                    f"chunk {chunk}: {name!r} has {len(array)} images, not {count}"
                )
        root = self.folder / "maps.zarr"
        sizes = {
            name: arrays_on_disk.write(root, name, array, first, total, self.chunk_size)
            for name, array in arrays.items()
        }
        if rows.keys() != set(COLUMNS):
            odd = sorted(rows.keys() ^ set(COLUMNS))
            raise ValueError(f"chunk {chunk}: columns {odd} are missing or unknown")
        about = {"digest": self.meta["digest"], "chunk": self.chunk_size}
        schema = SCHEMA.with_metadata(
            {"klip_jax": json.dumps(about | {"images": count, "arrays": sizes})}
        )
        table = pa.table({n: pa.array(rows[n]) for n in COLUMNS}).cast(schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, write_page_checksum=True, compression="zstd")
        write_atomically(self._part(chunk), sink.getvalue().to_pybytes())

    def scores(self, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Return {column: values}, a row an image and detector, sorted by image.

        Args:
          names: the columns to read; None reads all. Texts are arrays of objects.

        Raises:
          ValueError: if a part is broken.
        """
        names = COLUMNS if names is None else tuple(names)
        read = dict.fromkeys((*names, "index"))
        parts = [self._read(chunk, list(read)) for chunk in self.chunks_done()]
        table = pa.concat_tables(parts) if parts else SCHEMA.empty_table().select(read)
        order = np.argsort(table["index"].to_numpy(), kind="stable")
        return {name: _values(table[name])[order] for name in names}

    def array_names(self) -> list[str]:
        """Return the names of the arrays, sorted."""
        return arrays_on_disk.names(self.folder / "maps.zarr")

    def array(self, name: str) -> StoredArray:
        """Return the array `name`, lazily.

        Raises:
          ValueError: if it is absent or broken; a broken chunk, when it is sliced.
        """
        return StoredArray(self.folder / "maps.zarr", name)

    def _part(self, chunk: int) -> pathlib.Path:
        return self.folder / "scores" / f"part-{chunk:05d}.parquet"

    def _read(self, chunk, names):
        path = self._part(chunk)
        try:
            return pq.ParquetFile(path, page_checksum_verification=True).read(names)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ValueError(_broken(path, short(error))) from None

    def _check(self, chunk):
        path = self._part(chunk)
        try:
            parquet = pq.ParquetFile(path)
            about = json.loads(parquet.schema_arrow.metadata[b"klip_jax"])
            digest, size, images = about["digest"], about["chunk"], about["images"]
            arrays = dict(about["arrays"])
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(_broken(path, short(error))) from None
        if (digest, size) != (self.meta["digest"], self.chunk_size):
            raise ValueError(
                f"{path}: belongs to another config than config.json beside it; give "
                "another --workdir"
            )
        if parquet.metadata.num_rows % max(images, 1):
            raise ValueError(_broken(path, "it lacks rows"))
        for name, (dimensions, size) in arrays.items():
            file = chunk_file(self.folder / "maps.zarr", name, chunk, dimensions)
            on_disk = file.stat().st_size if file.is_file() else 0
            if on_disk != size:
                raise ValueError(
                    f"{file}: {on_disk} bytes, {size} were written; delete {path} and "
                    "run again, that chunk is made anew and the others stay"
                )


def _broken(path, why) -> str:
    return (
        f"{path}: not a whole part of the scores ({why}); delete it and run again, the "
        "other parts stay"
    )


def _values(column: pa.ChunkedArray) -> np.ndarray:
    if not pa.types.is_string(column.type):
        return column.to_numpy()
    # A million rows share the few objects of their names.
    column = column.combine_chunks().dictionary_encode()
    names = np.array(column.dictionary.to_pylist(), object)
    return names[column.indices.to_numpy()] if len(names) else names
