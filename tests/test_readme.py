"""What the README shows works, from any folder."""

import importlib
import math
import re
import sys

import conftest
import pytest

from klip_jax.detectors.klip import KLIP
from klip_jax.posterior import PosteriorSampler

FEW = dict(
    DETECTOR=KLIP(level_count=2, chunk=1),
    POSTERIOR=PosteriorSampler(samples=3, steps=3),
)


@pytest.mark.filterwarnings("ignore:.*miss the measurements")  # by so few steps
@pytest.mark.parametrize("steps", ["few", pytest.param("all", marks=pytest.mark.slow)])
def test_the_python_example(tmp_path, monkeypatch, steps):
    monkeypatch.chdir(tmp_path)
    importlib.import_module("klip_jax.detect")
    for name, value in FEW.items() if steps == "few" else ():
        monkeypatch.setattr(sys.modules["klip_jax.detect"], name, value)
    text = (conftest.ROOT / "README.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["detection"].heatmap.shape == (64, 64)
    assert math.isfinite(names["detection"].score)
    assert names["detection"].stderr > 0
