"""What the wheel carries: the default experiment, its weights and law, every config.

A checkout has its configs in `configs/`; the wheel carries that folder as
`klip_jax/configs`.
"""

import os
import pathlib
from collections.abc import Iterator

import klip_jax

PACKAGE = pathlib.Path(klip_jax.__file__).parent
_FOLDERS = PACKAGE / "configs", PACKAGE.parent / "configs"


def config_path(name: str) -> pathlib.Path:
    """Return the file of an experiment that comes with the package.

    Args:
      name: of a config, "brain_mri".

    Raises:
      FileNotFoundError: if there is none, naming those there are.

    >>> config_path("brain_mri").name
    'brain_mri.py'
    """
    for folder in _FOLDERS:
        path = folder / f"{name}.py"
        if path.is_file() and path.parent == folder:
            return path
    raise FileNotFoundError(
        f"--config={name}: no such file, and no experiment of that name; there are "
        f"{', '.join(config_names())}"
    )


def config_names() -> list[str]:
    """Return the names of the experiments that come with the package."""
    paths = [path for folder in _FOLDERS for path in folder.glob("*.py")]
    return sorted({path.stem for path in paths if not path.stem.startswith("_")})


def folders() -> Iterator[pathlib.Path]:
    """Yield the folders in which weights and laws are looked for, in order."""
    yield PACKAGE / "assets"
    yield pathlib.Path("checkpoints")
    if (PACKAGE.parent / "checkpoints").is_dir():
        yield PACKAGE.parent / "checkpoints"
    if home := os.environ.get("KLIP_HOME"):
        yield pathlib.Path(home)


def weights_names() -> dict[str, pathlib.Path]:
    """Return {name: file} of the weights in `folders`; the first of a name counts."""
    names: dict[str, pathlib.Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.safetensors")):
            names.setdefault(path.stem, path)
    return names
