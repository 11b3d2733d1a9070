"""The public names: listed, cheap to import, each shown in a doctest that runs here."""

import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import klip_jax
from klip_jax.types import Denoiser, Detector, LinearOperator

ROOT = Path(klip_jax.__file__).parent
DOCUMENTED = sorted(
    ".".join(["klip_jax", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text()
)


def module(name):
    importlib.import_module(name)
    return sys.modules[name]  # `klip_jax.detect` is the function


@pytest.mark.parametrize("name", DOCUMENTED)
def test_doctests(name):
    failed, tried = doctest.testmod(module(name))
    assert not failed and tried


def test_public_names():
    examples = "".join(
        example.source
        for name in DOCUMENTED
        for test in doctest.DocTestFinder().find(module(name))
        for example in test.examples
    )
    assert klip_jax.__all__ == sorted(klip_jax._PUBLIC)
    for name in klip_jax.__all__:
        thing = getattr(klip_jax, name)
        assert inspect.getdoc(thing) and not inspect.ismodule(thing)
        assert f"klip_jax.{name}" in examples
        assert name in dir(klip_jax)
    with pytest.raises(AttributeError, match="no attribute 'Settings'"):
        klip_jax.Settings  # noqa: B018
    assert klip_jax.__version__.count(".") == 2


LATER = """
import klip_jax.detect, klip_jax.sample
from klip_jax import detect, sample
from klip_jax.sample import Sampled
assert callable(klip_jax.detect) and callable(klip_jax.sample)
assert detect is klip_jax.detect and sample is klip_jax.sample
from klip_jax import types, sde
assert types.Scan is klip_jax.Scan and sde.log_levels
"""


def test_a_function_named_like_its_module_stays_the_function():
    subprocess.run([sys.executable, "-c", LATER], check=True, timeout=300)


def test_protocols_tell_their_own_from_others():
    assert isinstance(klip_jax.KLIP(), Detector)
    assert not isinstance(print, Denoiser)
    assert not isinstance(print, Detector) and not isinstance(print, LinearOperator)
