"""A prior by name: its scan, its law, and the numbers of the command line."""

import importlib.util
import json

import fake_run
import numpy as np
import pytest
from conftest import ROOT

import klip_jax
from klip_jax import hub
from klip_jax.cli import command
from klip_jax.run import scan_card
from klip_jax.run.store import Store


def cards():
    """The experiment that writes the cards of shipped weights."""
    path = ROOT / "experiments" / "scan_cards.py"
    spec = importlib.util.spec_from_file_location("scan_cards", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", cards().CARDS)
def test_the_cards_of_shipped_weights_are_those_of_their_configs(name):
    made = cards()
    expected = scan_card.of(made.settings_of(name))
    assert scan_card.read(made.path_of(name)) == expected


def test_shipped_weights_come_with_their_law():
    setup = klip_jax.load("phantom_ct")
    assert len(setup.law) >= 256 and np.isfinite(setup.law).all() and setup.law_of
    assert setup.posterior_sampler.samples == 6 and setup.detector.window == (0.02, 0.1)
    assert klip_jax.load_prior("phantom_ct")[1]["sha256"] == setup.record["sha256"]


def test_a_card_that_is_none_is_named(tmp_path):
    path = tmp_path / "a_scan.json"
    for text in ("[]", "{", '{"scan": {}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="no card of a scan"):
            scan_card.read(path)


def test_weights_without_a_card(files):
    with pytest.raises(FileNotFoundError, match="says for what scan it was calibrated"):
        klip_jax.load(files / "weights.safetensors")


WHITE = dict(
    seed=0,
    scan=dict(operator=dict(name="identity.Identity"), noise_std=0.05),
    posterior=dict(samples=3, steps=2),
    detectors=dict(
        klip=dict(name="klip.KLIP", level_count=2, window=(0.05, 0.2), pool_width=0.0)
    ),
    main="klip",
    calibration=dict(draws=4, steps=2),
)
"""The card of a prior of white pixels, 8x8."""


@pytest.fixture(scope="module")
def detected(compile_fast, tmp_path_factory):
    """A folder with y.npz, and in out/ what `klip detect` made of it."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "load", lambda name: (fake_run.White(), fake_run.RECORD))
        patch.setattr(hub, "law_paths", lambda name: list(folder.glob("out/law.npz")))
        patch.setattr(hub, "scan_paths", lambda name: [folder / "own_scan.json"])
        (folder / "own_scan.json").write_text(json.dumps(WHITE))
        x = fake_run.images(2).images
        noise = 0.05 * np.random.default_rng(1).standard_normal(x.shape)
        y, ids = np.float32(x + noise), np.array(["first scan", "second"])
        np.savez(folder / "y.npz", y=y, ids=ids)
        place = f"--measurements={folder / 'y.npz'}", f"--out={folder / 'out'}"
        status = command.main(["detect", *place, "--prior=own", "--detectors=klip"])
        yield folder, status, y


def test_the_command_line_and_the_library_agree(detected):
    folder, status, y = detected
    store, scores = Store(folder / "out"), Store(folder / "out").scores()
    assert status == 0 and store.meta["command"].startswith("klip detect --meas")
    assert (folder / "out" / "report.html").is_file()
    # What was made travels beside the weights.
    card = scan_card.read(folder / "out" / "scan.json")
    assert card["scan"] == WHITE["scan"] and card["posterior"] == WHITE["posterior"]
    setup = klip_jax.load("own")
    assert len(setup.law) == 4 and setup.name == "klip" and setup.noise_std == 0.05
    for i, name in enumerate(["first scan", "second"]):
        result = klip_jax.detect(y[i], setup, key=setup.key(name))
        np.testing.assert_allclose(result.score, scores["score"][i], rtol=1e-4)
        np.testing.assert_allclose(result.p_value, scores["p_value"][i], rtol=1e-6)
        np.testing.assert_allclose(result.misfit, scores["misfit"][i], rtol=1e-4)
    assert result.law == "4 draws of the model"
    assert result.verdict == "clear"  # of four draws no p-value is below 1/5


def test_a_setup_brings_its_own_scan(detected):
    _, _, y = detected
    with pytest.raises(TypeError, match="a Setup has its own noise_std"):
        klip_jax.detect(y[0], klip_jax.load("own"), 0.1, key=0)
    with pytest.raises(TypeError, match="give detect"):
        klip_jax.detect(y[0], klip_jax.load("own").operator, key=0)
    with pytest.raises(ValueError, match=r"scan='mr': own was calibrated for \[''\]"):
        klip_jax.load("own", "mr")
