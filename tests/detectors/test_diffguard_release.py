"""DiffGuard gives the numbers of its release; all of them: parity_diffguard.py."""

import parity_diffguard
import pytest
from golden import assert_ok
from lab import golden_gradients, golden_parts
from lab.golden_diffguard import load
from lab.golden_diffnb import diffnb
from lab.golden_latent import of_latents


@pytest.fixture
def golden(shared_data):
    return load(str(shared_data / "golden"))


def test_levels_and_resizing(shared_data):
    assert_ok(golden_parts.schedules(shared_data / "golden"))
    assert_ok(golden_parts.resizes(shared_data / "golden"))


@pytest.mark.slow
def test_latents_and_stops(golden):
    assert_ok(parity_diffguard.inversion(golden))


@pytest.mark.slow
def test_a_run_from_the_image_to_the_score(golden):
    assert_ok(parity_diffguard.end_to_end(golden, "exp61"))


@pytest.mark.slow
def test_gradients_of_saved_states(golden):
    assert_ok(golden_gradients.of_runs(golden.folder))


@pytest.mark.slow
def test_a_run_of_latents(golden):
    assert_ok(of_latents(golden.folder, ("exp225",)))


@pytest.mark.slow
def test_diffnb(golden):
    assert_ok(diffnb(golden.folder))
