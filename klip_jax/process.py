"""What a command does around its work: environment, caches, Ctrl-C, errors in a line.

Exit status: 0; 1 if images failed or the run broke off; 2 if nothing was run; 130 after
Ctrl-C. Nothing here imports jax before it is used, so that `--help` is quick.
"""

import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

_INTERRUPTED = "klip_jax: interrupted; the same command goes on where it was"
_YNN = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
_WRONG = {"0.10.2": "jax-ml/jax#39103", "0.11.0": "jax-ml/jax#40633"}
_LONGEST = 1000  # characters of a message


def set_environment() -> None:
    """Set what must be set before jax is imported, where the user has not."""
    # Convolutions on CPU are up to twice as fast so; XLA aborts on flags that it does
    # not know, hence only for versions that were tried.
    if "XLA_FLAGS" not in os.environ and version("jaxlib") in ("0.10.0", "0.10.1"):
        os.environ["XLA_FLAGS"] = _YNN
    # Programs from the compilation cache are greeted with pages about CPU features.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def run(begin: Callable[[], Callable[[], int]]) -> int:
    """Run a command; returns the exit status.

    Args:
      begin: checks everything and returns what does the work; what it raises costs
        nothing yet.
    """
    try:
        warn_of_wrong_jax()
        try:
            start = begin()
        except (ValueError, OSError) as error:
            return complain(error, 2)
        try:
            return start()
        except (ValueError, OSError, FloatingPointError) as error:
            # A full disk, a folder that was deleted, a store that somebody broke.
            return complain(error, 1)
    except KeyboardInterrupt as error:
        said = " ".join(str(error).split())
        print(f"klip_jax: {said}" if said else _INTERRUPTED, file=sys.stderr)
        return 130


def short_interrupt(kind, error, traceback) -> None:
    """Say in one line that Ctrl-C came, also while modules are imported."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    print(_INTERRUPTED, file=sys.stderr)
    os._exit(130)


def cache_compilations() -> None:
    """Keep compiled programs between runs, unless the user chose where."""
    import jax

    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    try:
        home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:
        return  # a user without a home: programs are compiled again each time
    jax.config.update("jax_compilation_cache_dir", f"{home}/klip_jax")


def warn_of_wrong_jax() -> None:
    """Say if this jax computes wrong numbers."""
    if reason := _WRONG.get(version("jax")):
        print(
            f"klip_jax: jax {version('jax')} computes wrong results ({reason}); "
            "install another version",
            file=sys.stderr,
        )


def complain(error: BaseException, status: int) -> int:
    """Print an error in one line; returns `status`."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    print(f"klip_jax: {text}", file=sys.stderr)
    return status
