"""What docs/your_prior.md shows works: a network on the host is a prior as any."""

import re

import conftest
import numpy as np


def test_a_network_on_the_host():
    text = (conftest.ROOT / "docs" / "your_prior.md").read_text()
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        exec(compile(block, "your_prior.md", "exec"), names)
    result, same = names["result"], names["same"]
    np.testing.assert_allclose(result.score, same.score, rtol=1e-3)
    np.testing.assert_allclose(result.heatmap, same.heatmap, rtol=1e-2, atol=1e-3)
    assert 0.5 < result.misfit < 2
