"""A prior by name: its scan, its law, and the numbers of the command line."""

import importlib.util
import json
import sys

import fake_run
import numpy as np
import pytest
from conftest import ROOT

import klip_jax
from klip_jax import hub
from klip_jax.cli import command
from klip_jax.run import job, scan_card
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
    assert len(setup.law) == 199 and np.isfinite(setup.law).all()
    assert setup.law_of == "healthy images"
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


OWN = """
from fake_run import White

def make():
    return White(), (8, 8, 1)

def shapeless():
    return White(), (8, 8)

def fails():
    return 1 / 0
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The file of a module of one's own, with a prior."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_own_prior", raising=False)
    (tmp_path / "my_own_prior.py").write_text(OWN)
    return tmp_path / "my_own_prior.py"


def test_a_prior_that_is_code(own, tmp_path, monkeypatch):
    name = "my_own_prior:make"
    prior, record = hub.load(name)
    assert isinstance(prior, fake_run.White) and record["image_shape"] == [8, 8, 1]
    before = job.prepare(fake_run.settings(prior__weights=name), tmp_path / "run")
    assert before.shape == (8, 8, 1) and before.scene.operator is not None
    # Another source is another prior: of other laws, and of another workdir.
    own.write_text(OWN + "# changed\n")
    with pytest.raises(ValueError, match="the same config with other source of the pr"):
        job.prepare(fake_run.settings(prior__weights=name), tmp_path / "run")
    after = job.prepare(fake_run.settings(prior__weights=name), tmp_path / "other")
    assert before.fingerprints.draws["bright"] != after.fingerprints.draws["bright"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shapeless", r"its shape \(8, 8\) is not"),
        ("fails", "ZeroDivisionError"),
        ("other", "has no 'other'"),
    ],
)
def test_code_that_makes_no_prior(own, name, words):
    with pytest.raises(ValueError, match=words):
        hub.load(f"my_own_prior:{name}")


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
def detected(tmp_path_factory):
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
