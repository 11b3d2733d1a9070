"""The documents as a site, and what they show, run."""

import os
import re
import shutil
import subprocess
import sys

import conftest
import numpy as np
import pytest


def test_your_own_operator_and_detector():
    text = (conftest.ROOT / "docs" / "your_own.md").read_text()
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(compile(block, "your_own.md", "exec"), names)
    detection = names["detection"]
    assert detection.heatmap.shape == (8, 8) and np.isfinite(detection.score)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("docs", "klip_jax"):
        shutil.copytree(conftest.ROOT / name, source / name)
    shutil.copy(conftest.ROOT / "mkdocs.yml", source)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    site = source / "site"
    measures = (site / "what_it_measures.html").read_text()
    assert "<math" in measures and "arithmatex" not in measures
    assert "prior_inflation" in (site / "api" / "samplers.html").read_text()
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'(?:<(?:script|img)[^>]* src|rel="stylesheet" href)="(http[^"]+)',
            page.read_text(),
        )
        assert not loaded, page
