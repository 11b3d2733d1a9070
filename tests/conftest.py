"""Eight fake devices, programs that compile fast, types checked at run time, float64.

Three quarters of the time of the fast tests went into compiling programs that run once.
To test what users run, set JAX_DISABLE_MOST_OPTIMIZATIONS=0 and
XLA_FLAGS=--xla_cpu_use_fusion_emitters=true; slow tests compute much, and optimise.
"""

import os
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = {"--xla_force_host_platform_device_count": "8"}
if version("jaxlib").startswith("0.10."):  # XLA exits at a flag that it does not know
    FLAGS["--xla_cpu_use_fusion_emitters"] = "false"
GIVEN = os.environ.get("XLA_FLAGS", "")
MORE = [f"{name}={value}" for name, value in FLAGS.items() if name not in GIVEN]
os.environ["XLA_FLAGS"] = " ".join([GIVEN, *MORE])  # before jax is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.append(str(ROOT / "experiments"))
sys.path.append(str(ROOT / "tests"))  # the hook looks the checker up by its name

from jaxtyping import install_import_hook  # noqa: E402

if os.environ.get("KLIP_TYPECHECK", "1") == "1":
    install_import_hook("klip_jax", "typechecking.functions_only")

import jax  # noqa: E402
import pytest  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than 2 s on two cores")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


FAST = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"
jax.config.update("jax_disable_most_optimizations", FAST)


def pytest_runtest_setup(item):
    slow = item.get_closest_marker("slow")
    jax.config.update("jax_disable_most_optimizations", FAST and not slow)


@pytest.fixture
def shared_data():
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"{path} is absent: this test needs the shared data")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the weights and data of `tiny`."""
    import tiny  # here, because it imports jax

    folder = tmp_path_factory.mktemp("files")
    tiny.settings(folder)
    return folder
