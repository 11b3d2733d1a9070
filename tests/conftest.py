"""Eight fake devices, types checked at run time, the reference problems, float64."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = os.environ.get("XLA_FLAGS", "")
if "host_platform_device_count" not in FLAGS:  # before jax is imported
    os.environ["XLA_FLAGS"] = f"{FLAGS} --xla_force_host_platform_device_count=8"
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


@pytest.fixture(scope="module")
def compile_fast():
    """Compile in half the time, where the programs are run only a few times."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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
