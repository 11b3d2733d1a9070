"""What there is, read from the source text: nothing is imported, so that it is quick.

`klip list operators` names the public classes and functions of a room with their
settings and the first line of what they say of themselves.
"""

import ast
import functools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from klip_jax import assets
from klip_jax.rooms import PACKAGE, modules

ROOMS = {
    "operators": "operators",
    "priors": "priors",
    "detectors": "detectors",
    "samplers": "samplers",
    "guidance": "guidance",
    "readers": "data",
    "networks": "nets",
    "classifiers": "classifiers",
}
"""What can be listed, and the room it is in."""
KINDS = (*ROOMS, "weights", "configs")
_GIVEN = {"operators": 1, "nets": 0, "priors": 2}
"""Parameters that nobody sets: the image's shape; parameters and network."""
_OTHER = "NamedTuple", "Protocol", "Exception", "ValueError"


class Entry(NamedTuple):
    """A public class or function.

    Attributes:
      name: as a config names it, "ct.ParallelBeam".
      settings: {name: default as it is written, "" for none}.
      doc: its docstring.
    """

    name: str
    settings: dict[str, str]
    doc: str

    def __str__(self) -> str:
        settings = (f"{k}={v}" if v else k for k, v in self.settings.items())
        first = self.doc.strip().partition("\n")[0]
        return f"{self.name}({', '.join(settings)})\n    {first}"


def lines(kind: str) -> Iterator[str]:
    """Yield what `klip list` prints of one of `KINDS`.

    Raises:
      ValueError: if there is no such kind.
    """
    if kind == "configs":
        for name in assets.config_names():
            tree = _tree(assets.config_path(name))
            yield f"{name}\n    {(ast.get_docstring(tree) or '').partition(chr(10))[0]}"
    elif kind == "weights":
        for name, path in assets.weights_names().items():
            scans = sorted(
                p.name.removesuffix("_scan.json")
                for p in path.parent.glob("*_scan.json")
                if p.name.startswith(name)
            )
            known = f"calibrated for {', '.join(scans)}" if scans else "no scan"
            yield f"{name}\n    {_headline(path)}; {known}"
    elif kind in ROOMS:
        yield from map(str, entries(ROOMS[kind]))
        if kind == "priors":
            yield "\nand weights by name, see klip list weights"
    else:
        raise ValueError(f"klip list {kind}: choose one of {', '.join(KINDS)}")


def entries(room: str) -> Iterator[Entry]:
    """Yield the public things of a room that a config can name."""
    for short, full in modules(room).items():
        path = PACKAGE.joinpath(*full.split(".")[1:]).with_suffix(".py")
        for node in _tree(path).body:
            if not _is_named(room, node):
                continue
            settings = _settings(node, path)
            if room == "priors" and "levels" not in settings:
                continue  # it is made of no network, so no config names it
            names = list(settings)[_GIVEN.get(room, 0) :]
            kept = {name: settings[name] for name in names}
            doc = ast.get_docstring(node) or ""  # type: ignore[arg-type]
            yield Entry(f"{short}.{node.name}", kept, doc)  # type: ignore[attr-defined]


def entry(room: str, name: str) -> Entry | None:
    """Return one of them; None if there is none of that name."""
    return next((e for e in entries(room) if e.name == name), None)


def settings_of(file: str, name: str) -> dict[str, str]:
    """Return {setting: default} of a class of a file of the package, "posterior.py"."""
    path = PACKAGE / file
    node = next(n for n in _tree(path).body if getattr(n, "name", "") == name)
    return _settings(node, path)


def _is_named(room, node) -> bool:
    if getattr(node, "name", "_").startswith("_"):
        return False
    if isinstance(node, ast.FunctionDef):
        returned = ast.unparse(node.returns) if node.returns else ""
        reads = node.name.startswith(("load", "source"))
        return room == "data" and reads and returned in ("ImageSet", "Source")
    if not isinstance(node, ast.ClassDef) or room == "data":
        return False
    bases = [ast.unparse(base) for base in node.bases]
    if any(base in _OTHER for base in bases):
        return False
    if room in ("detectors", "samplers", "guidance"):
        return bool(node.decorator_list) and (bool(bases) or room != "detectors")
    if room in ("nets", "classifiers"):
        # The parts of a network do something else than map images.
        return (ast.get_docstring(node) or "").startswith("Map ")
    return bool(bases) or bool(node.decorator_list)


@functools.cache
def _tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _settings(node, path) -> dict[str, str]:
    """Return the parameters of a function, or of what builds a class."""
    if isinstance(node, ast.FunctionDef):
        return _parameters(node)
    settings: dict[str, str] = {}
    for base in node.bases:
        if (known := _resolved(ast.unparse(base), path)) is not None:
            settings |= _settings(*known)
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return dict(list(_parameters(part).items())[1:])
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            if "ClassVar" in ast.unparse(part.annotation):
                continue
            value = ast.unparse(part.value) if part.value else ""
            _, _, default = value.partition("default=")
            settings[part.target.id] = default[:-1] if default else value
    return {k: v for k, v in settings.items() if not k.startswith("_")}


def _parameters(node: ast.FunctionDef) -> dict[str, str]:
    own = node.args
    names = [a.arg for a in (*own.posonlyargs, *own.args)]
    defaults = [""] * (len(names) - len(own.defaults)) + [
        ast.unparse(d) for d in own.defaults
    ]
    names += [a.arg for a in own.kwonlyargs]
    defaults += [ast.unparse(d) if d else "" for d in own.kw_defaults]
    return dict(zip(names, defaults, strict=True))


def _resolved(name: str, path):
    """Return (class, file) of a base of the package, None if it is not ours."""
    for node in _tree(path).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, path
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("klip"):
            if any((a.asname or a.name) == name for a in node.names):
                parts = (node.module or "").split(".")[1:]
                file = PACKAGE.joinpath(*parts).with_suffix(".py")
                return _resolved(name, file) if file.is_file() else None
    return None


def _headline(weights: pathlib.Path) -> str:
    card = weights.with_suffix(".md")
    first = card.read_text("utf-8").partition("\n")[0] if card.is_file() else "no card"
    return first.lstrip("# ")
