"""What `import klip_jax` does to a process: next to nothing."""

import subprocess
import sys

import pytest

QUIET = """
import os, sys
before = dict(os.environ)
import klip_jax
assert dict(os.environ) == before, "environment"
heavy = {"jax", "flax", "optax", "orbax", "matplotlib", "sklearn", "scipy", "absl"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""

FLAGS = """
import os, sys
before = dict(os.environ)
import jax
config = dict(jax.config.values)
import klip_jax
from klip_jax import KLIP, Detection, PosteriorSampler, detect, load_prior
import klip_jax.run.job, klip_jax.run.train, klip_jax.report.finish
from jax._src import xla_bridge
assert "XLA_FLAGS" not in os.environ, os.environ["XLA_FLAGS"]
changed = {k for k, v in jax.config.values.items() if config.get(k, v) != v}
assert not changed, changed
assert not xla_bridge.backends_are_initialized(), "it looked for devices"
from absl import flags
assert not [m for m in flags.FLAGS.flags_by_module_dict() if "klip_jax" in m], "flags"
"""


@pytest.mark.parametrize("code", [QUIET, FLAGS], ids=["quiet", "flags"])
def test_import_changes_nothing(code, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout == ""
