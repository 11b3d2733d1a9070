"""Imports point one way; a module outside the list must be given its layer here."""

import ast
from pathlib import Path

import pytest

import klip_jax

ROOT = Path(klip_jax.__file__).parent
# A module imports from the lines above its own, never from its own line.
LAYERS = """
types sde filters
operators nets
priors
guidance
samplers sample kl
data checkpoint convert metrics page parallel testing
calibration release
detectors
build default_config results workdir
diagnosis
comparison evaluation figures job train
job
run run_convert run_train
report
main
"""
LAYER = {m: i for i, line in enumerate(LAYERS.split("\n")) for m in line.split()}
# One new file is one new method there, so that none needs to know of another.
EXTENSIONS = {"operators", "nets", "priors", "guidance", "samplers", "detectors"}
MODULES = [p.relative_to(ROOT) for p in sorted(ROOT.rglob("*.py")) if p.parent != ROOT]
MODULES += [p.relative_to(ROOT) for p in ROOT.glob("*.py") if p.stem != "__init__"]


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
