"""Laws that ship are found by the configs that they were made for.

A print that differs in anything leaves a law unused, without a word: every first run
would draw hundreds of images instead. A CT scanner, which takes long to build, need not
be there: only whole numbers that an operator holds are in a print, and it holds none.
"""

import importlib.util

import pytest

from klip_jax import config, hub
from klip_jax.assets import config_path, default_config
from klip_jax.operators.identity import Identity
from klip_jax.run import settings as tree
from klip_jax.run.job import scene_of
from klip_jax.run.rehearse import Shapes, build_detector
from klip_jax.run.shipped import law_fingerprints, shipped_laws

SHIPPED = ["abdomen_ct", "brain_mri", "faces", "faces:inpaint", "fashion_inpaint"]


@pytest.fixture(autouse=True)
def quick_scanners(monkeypatch):
    def build(room, settings, *args, build=config.build):
        if room == "operators" and settings["name"].startswith("ct."):
            return Identity(*args)
        return build(room, settings, *args)

    monkeypatch.setattr(config, "build", build)


def laws_of(chosen, names):
    """Return the laws that ship for detectors of a config."""
    settings = tree.check(chosen.to_dict())
    prior, record = hub.load(settings["prior"]["weights"])
    shape = tuple(record["image_shape"])
    scene = scene_of(settings, prior, Shapes(shape, shape))
    detectors = {n: build_detector(n, settings["detectors"][n]) for n in names}
    prints = law_fingerprints(settings, record, scene, detectors)
    return shipped_laws(settings, detectors, prints)


def test_the_default_run_finds_its_law():
    chosen = default_config.get_config()
    laws = laws_of(chosen, chosen.detectors)
    assert laws.draws.keys() == laws.healthy.keys() == set(chosen.detectors)
    assert {len(law) for law in laws.healthy.values()} == {199}
    assert laws.patients == 199  # a phantom each


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_configs_find_the_law_of_their_main_detector(name):
    file, _, variant = name.partition(":")
    spec = importlib.util.spec_from_file_location(file, config_path(file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    chosen = module.get_config(*[variant] if variant else [])
    laws = laws_of(chosen, [chosen.main])
    assert chosen.main in {*laws.draws, *laws.healthy}
