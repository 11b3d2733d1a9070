"""What the README shows works, from any folder."""

import math
import re

import conftest


def test_the_python_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (conftest.ROOT / "README.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["detection"].heatmap.shape == (64, 64)
    assert math.isfinite(names["detection"].score)
    assert names["detection"].stderr > 0
