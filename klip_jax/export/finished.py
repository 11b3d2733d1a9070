"""A finished run beside its data: each map at the size of the image it is of.

    export(workdir, "nifti")     volumes with the affine of the input
    export(workdir, "dicom")     parametric maps that refer to the series
    export(workdir, "png")       overlays on the input

The images are those that the config of the run names; they must still be there.
"""

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from klip_jax.data.base import ImageSet
from klip_jax.run.named_images import image_sets
from klip_jax.run.store import Store

KINDS = ("nifti", "dicom", "png")


@dataclasses.dataclass(frozen=True, eq=False)
class Maps:
    """The maps of a run.

    Attributes:
      name: of the detector.
      images: the data.
      done: indices of the images that were looked at, ascending.
      store: of the run.
    """

    name: str
    images: ImageSet
    done: tuple[int, ...]
    store: Store

    def of(self, i: int) -> Float[np.ndarray, "H W"]:
        """Read the map of the image at index `i`, at the size of its file.

        NaN where the image was cut off before it was looked at.
        """
        seen = self.store.array(f"{self.name}/heatmap")[i : i + 1]
        return (
            seen[0] if self.images.fits is None else self.images.fits[i].back(seen)[0]
        )

    def by_file(self) -> Iterator[tuple[str, list[int]]]:
        """Yield each file of the data with the indices of its images.

        Raises:
          ValueError: if the data do not lie in files of one image or volume.
        """
        if self.images.places is None:
            raise ValueError(
                "the images of this run do not lie in files of their own; export is "
                "for DICOM, NIfTI and pictures"
            )
        files: dict[str, list[int]] = {}
        for i in self.done:
            files.setdefault(self.images.places[i].file, []).append(i)
        yield from files.items()


def export(workdir: str | Path, to: str, *, detector: str = "") -> list[Path]:
    """Write the maps of a run into a folder of its workdir.

    Args:
      workdir: of a run, finished or not; what is not done is left out.
      to: one of `KINDS`.
      detector: whose maps, by its name in the config; "" for the main one.

    Returns:
      The files that were written.

    Raises:
      FileNotFoundError: if there is no run, or its data are gone.
      ValueError: if the data are not as they were, there are no maps, or they are not
        for this format.
    """
    if to not in KINDS:
        raise ValueError(f"--to={to}: give one of {', '.join(KINDS)}")
    maps = read(workdir, detector)
    return importlib.import_module(f"klip_jax.export.{to}").write(maps, Path(workdir))


def read(workdir: str | Path, detector: str = "") -> Maps:
    """Open the maps of a run; arguments and errors as of `export`."""
    store = Store(workdir)
    settings = store.meta["settings"]
    name = detector or settings["main"]
    if f"{name}/heatmap" not in store.array_names():
        known = [n for n in store.array_names() if n.endswith("/heatmap")]
        raise ValueError(f"{workdir}: no maps of {name!r}; there are {known}")
    images = image_sets(settings).get("data")
    if images is None:
        raise ValueError(
            f"{workdir}: was run on measurements, which have no file of an image; its "
            "maps are in maps.zarr"
        )
    rows = store.scores(["index", "image_id"])
    for i, said in zip(rows["index"], rows["image_id"], strict=True):
        if i >= len(images) or images.ids[i] != said:
            raise ValueError(
                f"{workdir}: image {i} was {said!r} and is no more: the data changed "
                "since the run"
            )
    return Maps(name, images, tuple(sorted({int(i) for i in rows["index"]})), store)


def safe(name: str, i: int) -> str:
    """Return a file name, without its ending, for image `i` of any name."""
    return f"{i:05d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:60]}"
