"""Picture files opened by Pillow: what their header says, before they are decoded."""

import contextlib
import io
import pathlib
import warnings
from collections.abc import Iterator, Sequence

from PIL import Image


@contextlib.contextmanager
def opened(
    source: pathlib.Path | bytes, where: object, formats: Sequence[str]
) -> Iterator[Image.Image]:
    """Open a picture, of which no pixel is decoded yet; close it in the end.

    Args:
      source: a file, or the bytes of one.
      where: it is, for the message.
      formats: what it may be, by Pillow's names.

    Raises:
      ValueError: if it is none of these, broken, or declares more pixels than Pillow's
        limit against decompression bombs; or for what is raised with it in hand.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            # Pillow only warns between its limit and twice that.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=list(formats)) as image:
                yield image
    except (
        *(OSError, ValueError, SyntaxError, EOFError),
        *(Image.DecompressionBombWarning, Image.DecompressionBombError),
    ) as error:
        kinds = " or ".join(formats)
        raise ValueError(f"{where}: not a whole {kinds} image ({error})") from None
