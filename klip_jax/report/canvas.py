"""What all figures share: colours, labels, and PNG bytes; no state of matplotlib.

A picture carries a digest of what it shows and of the code that drew it, so that it is
drawn anew only when one of them changed.
"""

import hashlib
import io
import pathlib
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from klip_jax.files import write_atomically

INK, QUIET, RULE = "#1c2733", "#6b7785", "#c9d0d8"
BLUE, RED = "#2b6c9f", "#c0392b"
DPI = 100


def kept(path: pathlib.Path, content: Any, draw: Callable[[], bytes]) -> bytes:
    """Return the PNG at `path`, drawn anew only if what it shows has changed.

    Args:
      path: of the picture.
      content: everything that `draw` reads: arrays, numbers, texts, nested.
      draw: makes the PNG.
    """
    text = b"tEXtklip_jax\0" + _digest(content).encode()
    size, check = struct.pack(">I", len(text) - 4), struct.pack(">I", zlib.crc32(text))
    chunk = size + text + check
    # A PNG begins with 8 + 25 bytes of signature and sizes; chunks may follow.
    if path.is_file() and (old := path.read_bytes())[33:].startswith(chunk):
        return old
    new = draw()
    new = new[:33] + chunk + new[33:]
    write_atomically(path, new)
    return new


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG of 256 colours, a third of the bytes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    # Median cut, the default, would mute the few pixels of an outline.
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    file = io.BytesIO()
    image.quantize(256, method=method, kmeans=1, dither=dither).save(file, "png")
    return file.getvalue()


def _digest(content) -> str:
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())

    def add(part):
        if isinstance(part, np.ndarray) and part.dtype != object:
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, dict):
            add(list(part.items()))
        elif isinstance(part, tuple | list | np.ndarray):
            digest.update(f"[{len(part)}".encode())
            for each in part:
                add(each)
        else:
            digest.update(f"{part!r};".encode())

    add(content)
    return digest.hexdigest()


def label_axes(ax, title: str, x: str, y: str) -> None:
    """Write the title and the names of both axes; a frame at the left and below."""
    ax.set_title(title, fontsize=9, color=INK, loc="left", parse_math=False)
    ax.set_xlabel(x, fontsize=8, color=QUIET)
    ax.set_ylabel(y, fontsize=8, color=QUIET)
    ax.tick_params(labelsize=8, colors=QUIET, length=3, width=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(color=RULE)
