"""Names looked up in the rooms of the package: the file system is the registry.

`ct.ParallelBeam` in the room `operators` is `klip_jax.operators.ct.ParallelBeam`, and
`mine.scan:Slab` is `Slab` of your own module `mine/scan.py`.
"""

import importlib
import pathlib
from types import ModuleType
from typing import Any

import klip_jax
from klip_jax.spelling import short

_ALSO = {"data": ("phantoms",)}
PACKAGE = pathlib.Path(klip_jax.__file__).parent


def modules(room: str) -> dict[str, str]:
    """Return {short name: full name} of what a room offers; bases are left out."""
    known = {}
    for folder in (*_ALSO.get(room, ()), room):
        for path in sorted((PACKAGE / folder).glob("*.py")):
            if path.stem != "__init__" and not (path.stem + "_").startswith("base_"):
                known[path.stem] = f"klip_jax.{folder}.{path.stem}"
    return dict(sorted(known.items()))


def module(room: str, name: str) -> ModuleType:
    """Import a module of a room.

    Raises:
      ValueError: if there is no such module, listing what there is.
    """
    known = modules(room)
    if name not in known:
        raise ValueError(
            f"{room}: no module {short(name)}; there are {list(known)}, and your own "
            "as 'package.module:Name'"
        )
    return importlib.import_module(known[name])


def resolve(room: str, name: Any) -> Any:
    """Return what `name` means in a room.

    Args:
      room: a folder of the package, such as "operators".
      name: "module.Public" of the room, or "package.module:Public" of anything that can
        be imported.

    Raises:
      ValueError: if there is no such module or name, listing what there is.
    """
    if not isinstance(name, str):
        raise ValueError(f"{room}: name={short(name)}: give a text, 'module.Public'")
    own = ":" in name
    module_name, _, attribute = name.partition(":" if own else ".")
    place = _imported(room, module_name) if own else module(room, module_name)
    if attribute.startswith("_") or not hasattr(place, attribute):
        raise ValueError(
            f"{room}: {short(module_name)} has no {short(attribute)} (in "
            f"{short(name)}); it has {public_names(place)}"
        )
    return getattr(place, attribute)


def public_names(module: ModuleType) -> list[str]:
    """Return the classes and functions that a module defines itself."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", "") == module.__name__
    )


def _imported(room, name):
    try:
        return importlib.import_module(name)
    except Exception as error:
        # Somebody else's module may fail in any way while it is imported.
        raise ValueError(
            f"{room}: the module {short(name)} cannot be imported "
            f"({type(error).__name__}: {str(error)[:200]})"
        ) from None
