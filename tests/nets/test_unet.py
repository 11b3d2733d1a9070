import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from klip_jax import hub
from klip_jax.nets import unet
from klip_jax.nets.unet import UNet, depth_to_space, space_to_depth
from klip_jax.priors.edm import EDM

NET = UNet(channels=(8, 8), groups=4)


@pytest.fixture(scope="module")
def params():
    return tiny.random_params()


@pytest.fixture(scope="module")
def apply():
    return jax.jit(NET.apply)


def test_output_is_as_the_input(params, apply):
    x = jax.random.normal(jax.random.key(0), tiny.SHAPE)
    out = apply(params, x, jnp.float32(-0.5))
    assert out.shape == x.shape and out.dtype == jnp.float32
    assert bool(jnp.isfinite(out).all()) and float(out.std()) > 1e-2
    # It sees its noise level.
    other = apply(params, x, jnp.float32(0.5))
    assert float(jnp.abs(out - other).max()) > 1e-3


@pytest.mark.parametrize(
    ("shape", "net", "grid"),
    [
        ((64, 64, 1), UNet(), 8),
        ((32, 32, 3), UNet(), 4),
        ((24, 40, 2), UNet(channels=(8, 8)), 4),
        ((28, 28, 1), UNet(channels=(8, 8), fold=1), 2),
        ((48, 32, 1), UNet(channels=(8,), blocks=2, fold=4), 4),
    ],
    ids=str,
)
def test_shapes(shape, net, grid):
    def out(shape):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        sigma = jax.ShapeDtypeStruct((), jnp.float32)
        found, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), x, sigma)
        return found.shape

    assert out(shape) == shape
    height, width, c = shape
    with pytest.raises(ValueError, match=f"{height}x{width - 1} .*multiples of {grid}"):
        out((height, width - 1, c))


def test_folding_is_a_permutation():
    x = jnp.arange(6 * 4 * 3.0).reshape(6, 4, 3)
    for fold in (1, 2):
        folded = space_to_depth(x, fold)
        assert folded.shape == (6 // fold, 4 // fold, 3 * fold**2)
        np.testing.assert_array_equal(depth_to_space(folded, fold), x)
    # The channels of one cell are its own pixels.
    cell = np.asarray(space_to_depth(x, 2)[1, 1]).reshape(2, 2, 3)
    np.testing.assert_array_equal(cell, x[2:4, 2:4])


def test_untrained_it_is_the_best_linear_denoiser(params):
    last = max(name for name in params["params"] if name.startswith("Conv"))

    @jax.jit
    def initialised(key):  # all but this layer is dropped by the compiler
        x, noise_level = jnp.zeros(tiny.SHAPE), jnp.float32(0)
        return NET.init(key, x, noise_level)["params"][last]

    own = {"params": params["params"] | {last: initialised(jax.random.key(0))}}
    prior = EDM(own, NET, sigma_data=0.5)
    x = jax.random.normal(jax.random.key(1), tiny.SHAPE)
    denoise = jax.jit(lambda prior, sigma: prior.denoise(x, sigma))
    for sigma in (0.05, 1.0, 8.0):
        expected = x * 0.25 / (0.25 + sigma**2)
        np.testing.assert_allclose(denoise(prior, sigma), expected, rtol=1e-5)
        other = denoise(EDM(params, NET, sigma_data=0.5), sigma)
        assert float(jnp.abs(other - expected).max()) > 1e-2


def test_vmap_is_a_loop(params, apply):
    x = jax.random.normal(jax.random.key(2), (3, *tiny.SHAPE))
    levels = jnp.array([-1.0, 0.0, 0.6])
    batch = jax.jit(jax.vmap(NET.apply, (None, 0, 0)))(params, x, levels)
    for a, level, found in zip(x, levels, batch, strict=True):
        np.testing.assert_allclose(found, apply(params, a, level), 1e-4, 1e-5)


@pytest.mark.slow
def test_jit_changes_nothing(params, apply):
    x = jax.random.normal(jax.random.key(3), tiny.SHAPE)
    with jax.disable_jit():
        plain = NET.apply(params, x, jnp.float32(-1.0))
    np.testing.assert_allclose(apply(params, x, jnp.float32(-1.0)), plain, 1e-4, 1e-5)


@pytest.mark.parametrize(("over", "axes"), [("image", (0, 1, 3)), ("rows", (1, 3))])
def test_statistics_are_over_the_image_or_its_rows(over, axes):
    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x):
            return unet._norm(x, 2, over)

    # Every row and every channel has a mean and a spread of its own.
    rng = np.random.default_rng(0)
    spread, mean = rng.uniform(1, 9, (2, 6, 1, 4))
    x = jnp.float32(mean + spread * rng.normal(size=(6, 5, 4)))
    found, _ = Norm().init_with_output(jax.random.key(0), x)
    grouped = np.asarray(found).reshape(6, 5, 2, 2)
    np.testing.assert_allclose(grouped.mean(axes), 0, atol=1e-5)
    np.testing.assert_allclose(grouped.var(axes), 1, rtol=1e-3)


def test_another_norm_is_refused():
    with pytest.raises(ValueError, match="norm_over='batch': must be 'image' or"):
        hub.empty_params(UNet(norm_over="batch"), (32, 32, 1))
