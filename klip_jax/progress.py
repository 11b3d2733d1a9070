"""A bar where somebody looks on, a line now and then where a file does."""

import sys
from typing import Any

from tqdm import tqdm

_SECONDS = 30.0
"""Between two lines in a file."""


class _Lines:
    """A stream that makes a line of whatever a bar draws over itself."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> None:
        if words := text.strip("\r\n "):
            self.stream.write(f"{words}\n")

    def flush(self) -> None:
        self.stream.flush()


def bar(*args: Any, **settings: Any) -> Any:
    """Return a `tqdm` bar on the standard error, in lines where it is no terminal.

    Args:
      args, settings: of `tqdm`.
    """
    if sys.stderr.isatty():
        return tqdm(*args, **settings)
    lines: Any = _Lines(sys.stderr)
    settings |= dict(file=lines, mininterval=_SECONDS, maxinterval=_SECONDS, ncols=80)
    return tqdm(*args, ascii=True, **settings)
