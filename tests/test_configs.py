"""Every experiment can be built, without running it."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from klip_jax import build, default_config
from klip_jax.detectors.klip import Settings
from klip_jax.train import Recipe

ROOT = Path(__file__).resolve().parent.parent
FILES = [Path(default_config.__file__), *sorted((ROOT / "configs").glob("*.py"))]
# Of the images of each experiment; all others are as the default.
SHAPES = {
    "celeba_inpaint": (256, 256, 3),
    "chaos_song_image": (512, 512, 1),
    "chaos_song_dataset": (512, 512, 1),
    "chaos_padis_image": (256, 256, 1),
    "celeba_deblur": (256, 256, 3),
    "fashion_inpaint": (28, 28, 1),
}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request):
    return request.param


@pytest.fixture
def config(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "python -m klip_jax.main" in module.__doc__, "say how to run it"
    return module.get_config()


@pytest.fixture
def shape(file):
    return SHAPES.get(file.stem, (64, 64, 1))


def test_fields_are_those_of_the_default(config):
    assert isinstance(config, ConfigDict)
    default = default_config.get_config()
    build.check_fields(config, default, "config")
    for part in ("prior", "calibration", "train"):
        build.check_fields(config[part], default[part], part)
    for name in ("root", "measurements"):
        assert config.data[name] == "", "a config names no place of one machine"


def test_it_is_plain_data(config):
    plain = config.to_dict()
    back = json.loads(json.dumps(plain))
    assert back.keys() == plain.keys()
    assert build.fill(Settings, back["estimator"], "") == Settings(**config.estimator)


def test_every_name_is_something(config):
    found = []

    def walk(part):
        for key, value in part.items():
            if isinstance(value, ConfigDict):
                walk(value)
            elif key == "name":
                found.append(value)

    walk(config)
    rooms = dict(data=config.data, operators=config.operator)
    rooms |= dict(nets=config.train.net, priors=config.train.prior)
    for room, part in rooms.items():
        assert callable(build.resolve(room, part.name))
    assert callable(build.resolve("data", config.train.data.name))
    assert callable(build.resolve("data", config.train.test.name))
    assert len(found) == 6


def test_numbers_can_work(config, shape):
    settings = build.fill(Settings, config.estimator.to_dict(), "estimator")
    settings.check(shape)
    build.fill(Recipe, config.train.recipe.to_dict(), "recipe").check()
    assert config.noise_std > 0 and config.images_at_once >= 1
    operator = build.build("operators", config.operator.to_dict(), shape)
    assert operator.in_shape == shape


@pytest.mark.parametrize(
    "file",
    # Tracing a network of a hundred layers takes several seconds.
    [
        pytest.param(f, marks=pytest.mark.slow)
        if f.stem.startswith(("celeba", "chaos"))
        else f
        for f in FILES
    ],
    ids=lambda path: path.stem,
    indirect=True,
)
def test_network_builds_at_full_size(config, shape):
    net = build.build("nets", config.train.net.to_dict())
    part = config.train.prior.to_dict()
    seen = shape
    if side := part.get("patch"):  # a network of patches also sees where a pixel is
        seen = (side, side, shape[-1] + 2)
    params = build.empty_params(net, seen)
    own = build.resolve("priors", part.pop("name"))
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    sigma = jax.ShapeDtypeStruct((), jnp.float32)
    found = jax.eval_shape(lambda p, x, s: own(p, net, **part)(x, s), params, x, sigma)
    assert found.shape == shape and found.dtype == jnp.float32
    # In float16 weights of ours are at most 8 MB; those of others are not released.
    ours = config.train.net.name.startswith("unet.")
    assert not ours or 2 * sum(leaf.size for leaf in jax.tree.leaves(params)) <= 8e6


def test_the_default_ships_with_the_package():
    from klip_jax.workdir import shipped

    weights = shipped("", "phantom_ct.safetensors")
    assert weights.stat().st_size <= 8e6
    prior, card = build.load_prior(weights)
    assert tuple(card["image_shape"]) == (64, 64, 1)
    config = default_config.get_config()
    assert card["net"]["name"] == config.train.net.name
    assert card["prior"] == config.train.prior.to_dict()
    levels = [float(prior.levels[0]), float(prior.levels[-1])]
    assert levels[0] <= config.estimator.sigma_min and levels[1] >= 10
