"""What the README shows works, from any folder."""

import importlib
import math
import re
import sys
from types import SimpleNamespace

import conftest
import jax.numpy as jnp
import pytest

import klip_jax
from klip_jax.phantoms import anomalies


def white(x, sigma):
    """E[x0 | x] for x0 ~ N(1/2, 1/25)."""
    return (x + 12.5 * sigma**2) / (1 + 25 * sigma**2)


@pytest.fixture
def shorter(monkeypatch):
    """Few steps of a prior without a network, on no phantom: those cost much."""
    importlib.import_module("klip_jax.detect")
    module = sys.modules["klip_jax.detect"]  # `klip_jax.detect` is the function
    few = klip_jax.PosteriorSampler(samples=3, steps=3)
    monkeypatch.setattr(module, "POSTERIOR", few)
    monkeypatch.setattr(module, "DETECTOR", klip_jax.KLIP(level_count=2, chunk=1))
    prior, image = klip_jax.prior(white), jnp.full((64, 64, 1), 0.6)
    monkeypatch.setattr(klip_jax, "load_prior", lambda name: (prior, {}))
    drawn = SimpleNamespace(image=image)
    monkeypatch.setattr(anomalies, "draw", lambda key, kind: drawn)


def run_the_example():
    text = (conftest.ROOT / "README.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["detection"].heatmap.shape == (64, 64)
    assert math.isfinite(names["detection"].score)
    assert names["detection"].stderr > 0


@pytest.mark.filterwarnings("ignore:.*miss the measurements")
def test_the_python_example(shorter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_the_example()


@pytest.mark.slow
def test_the_python_example_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_the_example()
