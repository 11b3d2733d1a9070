"""What the README shows works, from any folder."""

import math
import re
from types import SimpleNamespace

import conftest
import jax.numpy as jnp
import numpy as np
import pytest

import klip_jax
from klip_jax.operators.ct import ParallelBeam
from klip_jax.phantoms import anomalies


def white(x, sigma):
    """E[x0 | x] for x0 ~ N(1/2, 1/25)."""
    return (x + 12.5 * sigma**2) / (1 + 25 * sigma**2)


@pytest.fixture
def shorter(monkeypatch):
    """Few steps of a prior without a network, on no phantom: those cost much."""
    prior, image = klip_jax.prior(white), jnp.full((64, 64, 1), 0.6)
    few = klip_jax.PosteriorSampler(samples=3, steps=3)
    klip = klip_jax.KLIP(level_count=2, chunk=1)
    scanner, no_law = ParallelBeam(image.shape, views=8), np.zeros(0, np.float32)
    setup = klip_jax.Setup(
        *(prior, scanner, 0.1, klip, "klip", few, no_law, "", {"seed": 0}, {})
    )
    monkeypatch.setattr(klip_jax, "load", lambda name: setup)
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
