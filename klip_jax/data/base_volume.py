"""What readers of medical volumes share: what is black and white, and the regions.

image = (value - (level - width / 2)) / width, cut to [0, 1]     by window
image = (value - offset) / scale                                 by range
image = value / (percentile of its volume), cut to [0, 1]        by percentile
"""

import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from klip_jax.data.base import Images, natural
from klip_jax.data.transforms import Greys, filled

LARGEST = 2**28
"""Pixels of one image at most: what a header declares is checked before it is read."""
_EXTRAS = {
    "pydicom": "medical",
    "nibabel": "medical",
    "highdicom": "medical",
    "h5py": "io",
    "ismrmrd": "mri",
}


def package(name: str, what: str) -> ModuleType:
    """Import an optional package, `name` or "name.part".

    Raises:
      ValueError: if it is not installed, with the extra that brings it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        root = name.partition(".")[0]
        raise ValueError(
            f"{what} needs the package {root}, which cannot be imported ({error}); "
            f"pip install 'klip_jax[{_EXTRAS[root]}]'"
        ) from None


class Range(NamedTuple):
    """What becomes 0 and 1 in volumes; settings of their readers.

    Attributes:
      window: (level, width), in Hounsfield units for CT; what lies outside is cut.
      offset, scale, clip: as of `transforms.Greys`, instead; scale 0 is not said.
      percentile: in (0, 100], of each volume's values, which becomes 1, while 0 stays
        0, instead; for MRI, whose values have no unit.
    """

    window: tuple[float, ...] = ()
    offset: float = 0.0
    scale: float = 0.0
    clip: bool = False
    percentile: float = 0.0

    def check(self, values: Callable[[], np.ndarray], where: str) -> None:
        """Check that one of the three is given.

        Args:
          values: returns some of the values, for the message.
          where: they are.

        Raises:
          ValueError: if it is not, or it cannot be.
        """
        said = bool(self.window), bool(self.scale), bool(self.percentile)
        if not any(said):
            some = values()
            raise ValueError(
                f"{where}: what is black and what is white? its middle image has "
                f"values from {some.min():g} to {some.max():g}; give data.window="
                "(level, width), such as (40, 400) for soft tissue in CT, or data."
                "percentile=99.5 for MRI, or data.offset and data.scale"
            )
        if sum(said) > 1:
            raise ValueError(
                "data.window, data.scale and data.percentile: give one of them"
            )
        if self.window and (len(self.window) != 2 or not self.window[1] > 0):
            raise ValueError(
                f"data.window={tuple(self.window)}: give (level, width), width > 0"
            )
        if not 0 <= self.percentile <= 100:
            raise ValueError(f"data.percentile={self.percentile}: give one in (0, 100]")

    def greys(self, volume: Callable[[], np.ndarray], where: str) -> Greys:
        """Return what becomes 0 and 1 in one volume, whose values `volume` returns."""
        if self.window:
            level, width = self.window
            return Greys(level - width / 2, width, True)
        if not self.percentile:
            return Greys(self.offset, self.scale, self.clip)
        white = float(np.percentile(volume(), self.percentile))
        if not white > 0:
            raise ValueError(
                f"{where}: the percentile {self.percentile:g} of its values is "
                f"{white:g}, which cannot become white; give data.offset and data.scale"
            )
        return Greys(0.0, white, True)


def images_of(
    values: Sequence[Shaped[np.ndarray, "h w"]],
    greys: Sequence[Greys],
    wheres: Sequence[str],
    inverted: Sequence[bool],
    inside: float | None,
    masks: Shaped[np.ndarray, "n h w"] | None = None,
) -> Images:
    """Return images [N, H, W, 1] of values, with body and eligible where asked for.

    Args:
      values: of each image.
      greys: what becomes 0 and 1 of each.
      wheres: where each lies, for messages.
      inverted: whether high is dark.
      inside: lowest value of the body in [0, 1]; its holes are filled. None is unknown.
      masks: where the anomaly is.

    Raises:
      ValueError: if values are not finite or fall outside.
    """
    images = np.empty((len(values), *np.shape(values[0]), 1), np.float32)
    for k, (value, own, where) in enumerate(zip(values, greys, wheres, strict=True)):
        own.check(value[None], where)
        images[k] = own.images(value[None])[0]
        if inverted[k]:
            images[k] = 1 - images[k]
    body = None if inside is None else filled(images, inside)
    return Images(images, masks, body, body)


REGIONS_INSIDE = ("eligible", "body")
"""What `inside` makes known."""


def files_of(path: Path, endings: tuple[str, ...], kind: str, named: str) -> list[Path]:
    """Return the file that is named, or those of a folder in natural order.

    Args:
      path: of a file or a folder.
      endings: of the names that are taken.
      kind, named: the format and its endings in words.

    Raises:
      FileNotFoundError: if there is neither.
      ValueError: if the folder holds no such file.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such file; set --config.data.root or the environment variable "
            "KLIP_DATA to the folder that holds it"
        )
    visible = [p for p in path.iterdir() if not p.name.startswith(".")]
    visible.sort(key=lambda p: natural(p.name))
    files = [p for p in visible if p.name.endswith(endings)]
    if not files:
        raise ValueError(f"{path}: no {named} file in it")
    if ignored := [p.name for p in visible if p not in files]:
        left = f"{path}: left out {', '.join(ignored)} (no {kind} file)"
        warnings.warn(left, stacklevel=3)
    return files
