"""DiffGuard gives the numbers of its release; all of them: parity_diffguard.py."""

import parity_diffguard
import pytest
from lab.golden_diffguard import load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compile_fast")]


@pytest.fixture
def golden(shared_data):
    return load(str(shared_data / "golden"))


def test_levels_and_stops(golden):
    assert_ok(parity_diffguard.schedules(golden))
    assert_ok(parity_diffguard.inversion(golden))


def test_a_run_from_the_image_to_the_score(golden):
    assert_ok(parity_diffguard.end_to_end(golden, "exp61"))


def assert_ok(checks):
    for check in checks:
        assert check["ok"], check
