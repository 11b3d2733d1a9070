"""What `import klip_jax` does to a process: next to nothing."""

import subprocess
import sys

import pytest

import klip_jax

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
from klip_jax import Detection, Settings, detect, load_prior
import klip_jax.run, klip_jax.run_train, klip_jax.report
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


def test_public_names():
    assert klip_jax.__all__ == sorted(klip_jax._PUBLIC)
    for name in klip_jax.__all__:
        thing = getattr(klip_jax, name)
        assert thing.__doc__ and thing.__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'KLIP'"):
        klip_jax.KLIP  # noqa: B018
    assert klip_jax.__version__.count(".") == 2
