"""Every experiment can be built and trained one step, without computing anything."""

import functools
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from klip_jax import assets, config, hub, signatures, training
from klip_jax.assets import default_config
from klip_jax.data.augment import Augment
from klip_jax.detectors.klip import KLIP
from klip_jax.posterior import PosteriorSampler
from klip_jax.recipe import Recipe
from klip_jax.rooms import resolve
from klip_jax.run import settings
from klip_jax.run.train import FIELDS, trained_by

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
# Those train a prior and a classifier.
PAIRS = [name for name in NAMES if name.startswith(("mnist", "cifar10"))]
SCANNED = [name for name in NAMES if not name.endswith(("guard", "_gdm", "_ldm"))]
# Of the images of each experiment; all others are as the default.
SHAPES = {
    "celeba_inpaint": (256, 256, 3),
    "chaos_song_image": (512, 512, 1),
    "chaos_song_dataset": (512, 512, 1),
    "chaos_padis_image": (256, 256, 1),
    "celeba_deblur": (256, 256, 3),
    "fashion_inpaint": (28, 28, 1),
    "mnist_diffguard": (28, 28, 1),
    "cifar10_diffguard": (32, 32, 3),
    "imagenet_diffguard_gdm": (256, 256, 3),
    "imagenet_diffguard_ldm": (224, 224, 3),
}


def get_config(name, *variant):
    spec = importlib.util.spec_from_file_location(name, assets.config_path(name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "python -m klip_jax.main" in module.__doc__, "say how to run it"
    return module.get_config(*variant)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def experiment(name):
    return get_config(name)


@pytest.fixture
def shape(name):
    return SHAPES.get(name, (64, 64, 1))


def test_the_tree_is_that_of_the_default(experiment):
    assert isinstance(experiment, ConfigDict)
    signatures.check_fields(experiment, default_config.get_config(), "config")
    signatures.check_fields(experiment.train, FIELDS, "train")
    # Sets of several readers have a root each.
    assert experiment.data.measurements == ""
    for data in experiment.data.get("data", dict(all=experiment.data)).values():
        assert data.get("root", "") == "", "a config names no place of one machine"


def test_it_is_plain_data_that_can_work(experiment):
    plain = settings.check(experiment.to_dict())
    assert json.loads(json.dumps(plain)) == plain
    assert plain["main"] == ("diffguard" if plain["scan"] is None else "klip")


@pytest.mark.parametrize("name", SCANNED, indirect=True)
def test_parts_are_built(experiment, shape):
    part = experiment.to_dict()
    operator = config.build("operators", part["scan"]["operator"], shape)
    assert operator.in_shape == shape
    # KLIP and the shared posterior use one guidance.
    assert part["detectors"]["klip"]["guidance"] == part["posterior"]["guidance"]
    klip = config.build("detectors", part["detectors"]["klip"])
    assert isinstance(klip, KLIP) and shape[0] % klip.block == 0
    given = {
        name: config.build(f"{name}s" if name == "sampler" else name, value)
        if name in ("sampler", "guidance")
        else value
        for name, value in part["posterior"].items()
    }
    assert PosteriorSampler(**given).levels().shape == (given["steps"] + 1,)


@pytest.mark.parametrize("name", SCANNED, indirect=True)
def test_controls_emphasise_what_klip_does(experiment):
    klip = experiment.detectors.klip
    names = set(experiment.detectors) - {"klip"}
    assert names == set(default_config.CONTROLS)
    filters = {"filter_width", "filter_weight", "pool_width"}
    for name in names:
        own = experiment.detectors[name].to_dict()
        assert own.pop("name").startswith("controls.")
        filtered = name in ("residual", "denoised_distance")
        assert own.keys() == {"block", "top_share"} | (filters if filtered else set())
        assert own == {field: klip[field] for field in own}


def test_one_change_moves_klip_and_its_controls():
    experiment = default_config.get_config()
    experiment.detectors.klip.block = 8
    experiment.detectors.klip.update(filter_width=1.5)
    plain = experiment.to_dict()["detectors"]
    assert {part["block"] for part in plain.values()} == {8}
    assert plain["residual"]["filter_width"] == 1.5


def test_every_name_is_something(experiment):
    part = experiment.to_dict()
    rooms = [("data", part["data"]), ("samplers", part["posterior"]["sampler"])]
    if part["train"]["prior"] is None:
        rooms += [("classifiers", part["train"]["net"])]
    else:
        rooms += [(f"{k}s", part["train"][k]) for k in ("net", "prior")]
    rooms += [("data", part["train"][k]) for k in ("data", "test")]
    rooms += [("detectors", detector) for detector in part["detectors"].values()]
    for room, own in rooms:
        assert callable(resolve(room, own["name"]))


@pytest.mark.parametrize(
    "name",
    # Tracing a network of a hundred layers takes several seconds.
    [
        pytest.param(n, marks=pytest.mark.slow)
        if n.startswith(("celeba", "chaos", "cifar10", "imagenet"))
        else n
        for n in NAMES
    ],
    indirect=True,
)
def test_one_training_step_traces(experiment, shape):
    one_step(experiment, shape)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow) if n.startswith("cifar10") else n
        for n in PAIRS
    ],
)
def test_one_step_of_a_classifier_traces(name):
    experiment = get_config(name, "classifier")
    plain = settings.check(experiment.to_dict())
    assert json.loads(json.dumps(plain)) == plain and plain["train"]["prior"] is None
    one_step(experiment, SHAPES[name])
    with pytest.raises(ValueError, match=rf"{name}.py:x: choose one of .*classifier"):
        get_config(name, "x")


def one_step(experiment, shape):
    part = experiment.to_dict()["train"]
    trained = trained_by(part, shape)
    params = trained.shapes()
    recipe = signatures.fill(Recipe, part["recipe"], "recipe")._replace(batch=2)
    recipe.check()
    signatures.fill(Augment, part["augment"], "augment").check()
    loss = functools.partial(trained.loss, recipe=recipe)

    def draw(arrays, key):
        image = jnp.zeros(shape)
        return (image, jnp.int32(0)) if trained.classes else image

    training.check_step(params, training.Source(draw), loss, recipe)
    # In float16 weights of ours are at most 8 MB; those of others are not released.
    size = 2 * sum(leaf.size for leaf in jax.tree.leaves(params))
    ours = part["net"]["name"].startswith("unet.")
    # Those of ten classes in colour are larger.
    assert size <= 16e6 if shape == (32, 32, 3) else size <= 8e6 or not ours


def test_variants_of_faces():
    blur, hole = (get_config("faces", kind) for kind in ("blur", "inpaint"))
    assert blur.scan.operator.name == "blur.GaussianBlur"
    assert hole.scan.operator.name == "mask.Box"
    assert blur.detectors.klip.map != hole.detectors.klip.map
    with pytest.raises(ValueError, match=r"faces.py:x: choose one of .*inpaint"):
        get_config("faces", "x")


def test_configs_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert assets.config_names() == NAMES
    assert assets.config_path("brain_mri").is_file()
    with pytest.raises(FileNotFoundError, match=r"=cats: .*abdomen_ct, brain_mri"):
        assets.config_path("cats")
    with pytest.raises(FileNotFoundError, match="no experiment of that name"):
        assets.config_path("../setup")


def test_the_default_ships_with_the_package():
    experiment = default_config.get_config()
    weights = hub.find(experiment.prior.weights)
    assert weights.parent.name == "assets" and weights.stat().st_size <= 8e6
    prior, record = hub.load(weights)
    assert tuple(record["image_shape"]) == (64, 64, 1)
    assert record["net"]["name"] == experiment.train.net.name
    assert record["prior"] == experiment.train.prior.to_dict()
    lowest, highest = float(prior.levels[0]), float(prior.levels[-1])
    assert lowest <= experiment.posterior.sigma_min and highest >= 10
