import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from klip_jax import build
from klip_jax.nets.unet import UNet
from klip_jax.operators.ct import ParallelBeam
from klip_jax.train import Recipe


def test_names_are_paths():
    assert build.resolve("operators", "ct.ParallelBeam") is ParallelBeam
    made = build.build("operators", dict(name="ct.ParallelBeam", views=3), (8, 8, 1))
    assert isinstance(made, ParallelBeam) and made.out_shape[0] == 3


def test_lists_of_json_become_tuples():
    net = build.build("nets", dict(name="unet.UNet", channels=[8, 16]))
    assert net == UNet(channels=(8, 16)) and hash(net) == hash(UNet(channels=(8, 16)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pet.Ring", r"operators: no module 'pet' in 'pet.Ring'; \['blur', .*'ct', "),
        ("base.Operator", "no module 'base'"),
        ("ct.Fan", "'ct' has no 'Fan'"),
        ("ct._strips", "'ct' has no '_strips'"),
        ("ct", "'ct' has no ''"),
        ("../checkpoint.load", "no module"),
        ("os.system", "no module 'os'"),
    ],
)
def test_unknown_names(name, words):
    with pytest.raises(ValueError, match=words):
        build.build("operators", dict(name=name), (8, 8, 1))


def test_unknown_settings():
    with pytest.raises(ValueError, match=r"operators: ct.ParallelBeam: .*'tilt'"):
        build.build("operators", dict(name="ct.ParallelBeam", tilt=3), (8, 8, 1))


def test_named_tuples_are_filled():
    assert build.fill(Recipe, dict(steps=3), "recipe") == Recipe(steps=3)
    with pytest.raises(ValueError, match=r"recipe: no setting 'step'; .*'steps'"):
        build.fill(Recipe, dict(step=3), "recipe")


def test_shapes_of_parameters_cost_nothing():
    shapes = build.empty_params(UNet(channels=(512, 1024)), (256, 256, 1))
    leaves = jax.tree.leaves(shapes)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    assert sum(leaf.size for leaf in leaves) > 1e7


def test_released_weights_are_a_denoiser(tmp_path):
    params = tiny.random_params()
    path = tiny.write_weights(tmp_path / "weights.safetensors", params)
    prior, card = build.load_prior(path)
    assert tuple(card["image_shape"]) == tiny.SHAPE and prior.sigma_data == 0.5
    np.testing.assert_allclose(prior.variance(jnp.float32(1.0)), 0.04, rtol=1e-5)
    halves = jax.tree.map(lambda a: np.float32(np.float16(a)), params)
    jax.tree.map(np.testing.assert_array_equal, prior.params, halves)
    own = build.resolve("priors", tiny.PRIOR["name"])
    table = {k: tiny.TABLE[k] for k in ("levels", "errors")}
    expected = own(halves, build.build("nets", tiny.NET), sigma_data=0.5, **table)
    x = jnp.full(tiny.SHAPE, 0.3)
    denoise = jax.jit(lambda prior, x: prior(x, jnp.float32(0.2)))
    np.testing.assert_array_equal(denoise(prior, x), denoise(expected, x))
    assert not np.allclose(denoise(prior, x), x, atol=1e-2)
