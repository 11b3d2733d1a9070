"""Imports point one way, files are short; a new module must be given its layer here."""

import ast
import statistics
from pathlib import Path

import pytest

import klip_jax

ROOT = Path(klip_jax.__file__).parent
# A module imports from the lines above its own, never from its own line.
LAYERS = """
types files struct recipe spelling progress
sde filters blocks parallel resize rooms signatures keys process
operators nets classifiers data metrics bootstrap checkpoint
distances pixels localization lesions rank_statistics
priors scan phantoms convert testing
guidance
samplers kl
sample
posterior
release calibration prior_predictive reference_law twisted
detectors result
detect config training error_table assets
records geometry own_prior
hub
run
report export
commands
main cli
__main__
"""
LAYER = {m: i for i, line in enumerate(LAYERS.split("\n")) for m in line.split()}
# One new file is one new method there, so that none needs to know of another.
EXTENSIONS = {
    *("operators", "nets", "classifiers", "priors", "guidance", "samplers"),
    *("classifiers", "distances", "detectors"),
}
MODULES = sorted(p.relative_to(ROOT) for p in ROOT.rglob("*.py"))
MODULES = [p for p in MODULES if p != Path("__init__.py")]


def imported(path):
    """List what a file imports from the package, as tuples of names below it."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write the import from klip_jax in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (n.split(".")[1:] for n in names if n.startswith("klip_jax."))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path):
    own = path.parts[0].removesuffix(".py")
    assert own in LAYER, f"give klip_jax.{own} a layer in this file"
    for room, *names in imported(path):
        if room != own:
            assert LAYER.get(room, -1) < LAYER[own], f"{path} imports klip_jax.{room}"
        elif own in EXTENSIONS:
            # Inside a folder only its base is shared: base.py, base_*.py of a family.
            base, _, _ = names[0].partition("_")
            assert base == "base", f"{path} imports its sibling {names[0]}"


def test_imports_make_no_circle():
    names = {".".join(path.with_suffix("").parts): path for path in MODULES}
    graph = {}
    for name, path in names.items():
        known = [".".join(parts) for parts in imported(path)]
        # "a.b" is the module b of the room a, or the name b of the module a.
        known += [other.rpartition(".")[0] for other in known]
        graph[name] = names.keys() & set(known)
    done, path = set(), []

    def visit(name):
        assert name not in path, f"imports in a circle: {[*path, name]}"
        if name not in done:
            path.append(name)
            for other in graph.get(name, ()):
                visit(other)
            path.pop()
            done.add(name)

    for name in graph:
        visit(name)


def test_files_are_short():
    lines = {p: len((ROOT / p).read_text().splitlines()) for p in MODULES}
    long = {str(p): n for p, n in lines.items() if n > 300}
    assert not long, f"past 300 lines a file is two ideas: {long}"
    assert statistics.median(lines.values()) <= 120


def test_nothing_is_called_found():
    """A name says what a thing is, not how it was come by."""
    places = []
    for path in MODULES:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            names = (getattr(node, field, None) for field in ("id", "arg", "name"))
            if "found" in names:
                places.append(f"{path}:{node.lineno}")
    assert not places, f"call it by what it is: {places}"
