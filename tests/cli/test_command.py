"""`klip`: words become the tree of settings of a config; what is not told is asked."""

import subprocess
import sys

import numpy as np
import pytest
import tiny
from PIL import Image

from klip_jax import commands, config
from klip_jax.assets.default_config import get_config
from klip_jax.cli import command, listing, tree
from klip_jax.recipe import Recipe
from klip_jax.run import settings


def asked(*words):
    known, more = command._parse(list(words))
    make = tree.training if known.command == "train" else tree.detection
    return make(vars(known), more)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twenty grey PNG files of 16x16 pixels."""
    folder = tmp_path_factory.mktemp("own") / "slices"
    folder.mkdir()
    for i, image in enumerate(tiny.images(20)):
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


QUICK = """
import sys
from klip_jax.cli.command import main
for words in ("--version", "--help", "detect --help --operator=mri.Cartesian",
              "train --help", "list detectors", "list weights"):
    try:
        assert main(words.split()) == 0
    except SystemExit as stopped:
        assert stopped.code == 0
heavy = {"jax", "flax", "numpy", "scipy", "matplotlib", "absl"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_help_and_lists_import_nothing_heavy():
    told = subprocess.run(
        [sys.executable, "-c", QUICK], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr
    for words in (
        "klip_jax 0.",
        "klip train --images",
        "acceleration=4.0",
        "klip.KLIP(",
    ):
        assert words in told.stdout
    assert "--posterior.samples=6" in told.stdout and "--batch=32" in told.stdout


def test_the_words_make_the_tree_of_the_config():
    """The default experiment, but for its data, and for training."""
    own = asked("detect", "--measurements=y.npz", "--prior=phantom_ct")
    whole = settings.check(get_config().to_dict())
    assert settings.check(own).keys() == whole.keys()
    for part in whole.keys() - {"data", "train", "run"}:
        assert settings.check(own)[part] == whole[part], part
    assert own["data"] == {"measurements": "y.npz"} and own["train"] == {}


def test_settings_of_operator_and_reader_by_name(pictures):
    words = f"--images={pictures}", "--prior=phantom_ct", "--operator=ct.ParallelBeam"
    own = asked("detect", *words, "--views=12", "--span=90", "--scale=200")
    assert own["scan"] == {
        "operator": {"name": "ct.ParallelBeam", "views": 12, "span": 90.0},
        "noise_std": 0.1,
    }
    # A whole number where a float is meant would be another law.
    assert type(own["scan"]["operator"]["span"]) is float
    assert own["data"]["scale"] == 200 and own["data"]["folder"] == str(pictures)
    own = asked(
        "detect",
        *words[:2],
        "--operator=mask.Half",
        "--noise_std=0.02",
        "--posterior.samples=4",
        "--detectors=klip,msma.MSMA",
        "--detectors.klip.window=(0.1, 0.2)",
        "--draws=9",
        "--seed",
        "3",
    )
    assert own["scan"] == {"operator": {"name": "mask.Half"}, "noise_std": 0.02}
    assert own["posterior"] == {"samples": 4} and own["main"] == "klip"
    assert own["detectors"]["klip"] == {"name": "klip.KLIP", "window": (0.1, 0.2)}
    assert list(own["detectors"]) == ["klip", "msma"]
    assert own["calibration"]["draws"] == 9 and own["seed"] == 3


def test_masks_say_what_is_healthy(pictures, tmp_path):
    odd = np.zeros((16, 16), np.uint8)
    for i in range(20):
        odd[3, 4] = 255 * (i < 5)
        Image.fromarray(odd).save(tmp_path / f"{i}.png")
    words = f"--images={pictures}", f"--masks={tmp_path}", "--scale=250", "--label=255"
    data = asked("detect", *words, "--prior=phantom_ct")["data"]
    assert data.pop("measurements") == "" and data["data"]["scale"] == 250
    images = config.build("data", data)
    assert images.groups == ("anomalous",) * 5 + ("id",) * 15
    part = asked("train", *words)["train"]
    trained, held = (config.build("data", part[name]) for name in ("data", "test"))
    assert set(trained.groups) == set(held.groups) == {"id"}
    assert len(trained) + len(held) == 15


def test_images_of_another_size(pictures):
    words = f"--images={pictures}", "--resize=20", "--pad=24,32", "--channels=3"
    data = asked("detect", *words, "--prior=phantom_ct", "--scale=250")["data"]
    assert config.build("data", {k: v for k, v in data.items() if v}).shape == (
        24,
        32,
        3,
    )
    assert data["data"]["scale"] == 250
    part = asked("train", *words, "--scale=250")["train"]
    for own in (part["data"], part["test"]):
        assert config.build("data", own).shape == (24, 32, 3)
        assert own["data"]["data"]["scale"] == 250
    with pytest.raises(ValueError, match="give whole numbers of pixels"):
        asked("train", f"--images={pictures}", "--pad=big")


def test_images_themselves(pictures):
    words = f"--images={pictures}", "--prior=phantom_ct", "--operator=none"
    own = asked("detect", *words, "--detectors=msma.MSMA")
    assert own["scan"] is None and own["main"] == "msma"
    with pytest.raises(ValueError, match="which detectors look at images themselves"):
        asked("detect", *words)


REFUSED = {
    "no prior": ((), "which prior"),
    "no data": (("--prior=phantom_ct",), "look at what"),
    "both": (("--prior=phantom_ct", "--images=a", "--measurements=b"), "look at what"),
    "absent": (("--prior=phantom_ct", "--images=absent"), "no such file or folder"),
    "no scan": (
        ("--prior=mine", "--measurements=y"),
        "mine was calibrated for no",
    ),
    "no noise": (("--prior=mine", "--measurements=y", "--operator=mask.Half"), "noisy"),
    "several": (
        ("--prior=faces_gray_64", "--measurements=y"),
        r"\['blur', 'inp",
    ),
    "no such scan": (
        ("--prior=phantom_ct", "--measurements=y", "--scan=mr"),
        "scan='mr': phantom_ct was calibrated for",
    ),
    "unknown": (
        ("--prior=phantom_ct", "--measurements=y", "--veiws=3"),
        "no setting --veiws: ct.ParallelBeam has views, span",
    ),
    "place": (
        ("--prior=phantom_ct", "--measurements=y", "--run.chunks=3"),
        "no setting run.chunks",
    ),
    "stray": (("stray",), "what is 'stray'"),
    "empty": (("--views",), "--views has no value"),
    "twice": (("--views=1", "--views=2"), "given twice"),
    "number": (("--noise_std=loud",), "invalid float value: 'loud'"),
    "operator": (
        ("--prior=mine", "--measurements=y", "--operator=ct.Fan", "--noise_std=1"),
        "'ct' has no 'Fan'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_missing_or_unknown_is_said(case, capsys):
    words, message = REFUSED[case]
    with pytest.raises((ValueError, OSError), match=message):
        asked("detect", *words)


def test_a_wrong_command_is_one_line(capsys):
    assert command.main(["detct"]) == 2
    assert command.main(["list", "operators", "ct.Fan"]) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert out == "" and "invalid choice: 'detct'" in first
    assert "there is none of that name" in second


def test_an_operator_of_the_folder_one_stands_in(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_scan.py").write_text(
        "import jax.numpy as jnp\n"
        "from klip_jax.operators.base import Operator\n"
        "class Rows(Operator):\n"
        "    def __init__(self, in_shape, width=1.0):\n"
        "        self.width = jnp.float32(width)\n"
        "        self.in_shape, self.out_shape = in_shape, (in_shape[0],)\n"
        "    def __call__(self, x):\n"
        "        return self.width * x.sum((1, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    begun = []

    def begin(mode, settings, folder, **more):
        begun.append((mode, settings, folder, more["command"]))
        return lambda: 0

    monkeypatch.setattr(commands, "begin", begin)
    words = ["detect", "--measurements=y.npz", "--prior=mine", "--noise_std=1"]
    words += ["--operator=my_scan:Rows", "--width=2"]
    assert command.main(words) == 0
    ((mode, own, folder, line),) = begun
    assert mode == "detect" and str(folder) == "runs/y" and line.startswith("klip det")
    operator = config.build("operators", own["scan"]["operator"], (4, 4, 1))
    assert operator.out_shape == (4,) and float(operator.width) == 2


def test_training_takes_nothing_from_phantoms(pictures):
    own = asked(
        "train", f"--images={pictures}", "--batch=4", "--shift=2", "--scale=250"
    )
    part = own["train"]
    assert part["licence"] == "not stated" and part["init"] == ""
    assert part["recipe"]["batch"] == 4 and part["augment"] == {"shift": 2}
    sets = [config.build("data", part[name]) for name in ("data", "test")]
    names = [set(images.ids) for images in sets]
    assert names[0] | names[1] == {str(i) for i in range(20)}
    assert not names[0] & names[1] and all(names)
    assert part["test"]["data"]["scale"] == part["data"]["data"]["scale"] == 250
    assert "phantom" not in repr(own)
    settings.check(own)


def test_fine_tuning_takes_the_network_of_the_weights(pictures, files):
    start = files / "weights.safetensors"
    part = asked("train", f"--images={pictures}", f"--init={start}", "--licence=CC0")
    part = part["train"]
    assert part["net"]["channels"] == [8, 8] and part["licence"] == "CC0"
    assert part["recipe"]["learning_rate"] == 3e-4 and part["init"] == str(start)


def test_the_default_recipe_names_every_field():
    assert set(get_config().train.recipe) == set(Recipe._fields)


def test_export_hands_over(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(commands, "Store", lambda folder: folder)
    asked_for = []

    def export(workdir, to, *, detector):
        asked_for.append((workdir, to, detector))
        return [tmp_path / "a.nii.gz"]

    monkeypatch.setattr(commands.finished, "export", export)
    assert command.main(["export", "runs/a", "--to=nifti", "--detector=klip"]) == 0
    assert asked_for == [("runs/a", "nifti", "klip")]
    assert "a.nii.gz" in capsys.readouterr().out
    assert command.main(["export", "runs/a", "--to=gif"]) == 2


def test_lists_name_what_configs_name():
    for room in set(listing.ROOMS.values()):
        names = [entry.name for entry in listing.entries(room)]
        assert names and len(names) == len(set(names))
    told = listing.entry("operators", "ct.ParallelBeam")
    assert told.settings["views"] == "24" and "in_shape" not in told.settings
    detectors = {entry.name: entry.settings for entry in listing.entries("detectors")}
    assert detectors["controls.Residual"]["filter_width"] == "2.0"  # inherited
    assert "combined.Usual" not in detectors
    kinds = "\n".join(listing.lines("weights")), "\n".join(listing.lines("configs"))
    assert "phantom_ct" in kinds[0] and "brain_mri" in kinds[1]


def test_a_reader_by_name(pictures, tmp_path):
    Image.fromarray(np.uint8(255 * np.eye(16))).save(tmp_path / "3.png")
    words = f"--images={pictures}", "--reader=folder.load", f"--masks={tmp_path}"
    data = asked("detect", *words, "--prior=phantom_ct", "--per-group=4")["data"]
    assert data["name"] == "masked.load" and data["data"]["per_group"] == 4
    assert data["data"]["folder"] == str(pictures)
    with pytest.raises(ValueError, match="it reads no file or folder"):
        asked("train", f"--images={pictures}", "--reader=noise.load")
