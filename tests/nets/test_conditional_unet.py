"""The class-conditional U-Net: labels, the null label, norms, the shipped prior."""

import functools
import io
import itertools
from pathlib import Path

import flax.linen as nn
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from klip_jax.checkpoint import check_fit, load_weights
from klip_jax.nets.conditional_unet import ConditionalUNet, GroupNorm

WEIGHTS = Path(__file__).parents[2] / "checkpoints" / "cifar10_32.safetensors"
SMALL = ConditionalUNet((8, 8), (1, 1), attention=(1,), classes=3, embedding=8)
SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def params():
    return golden.random_params(SMALL, SHAPE)


@pytest.fixture(scope="module")
def apply():
    return jax.jit(SMALL.apply)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), SHAPE)


def test_output_is_as_the_input():
    net = ConditionalUNet()
    x = jax.ShapeDtypeStruct((32, 24, 2), jnp.float32)
    level = jax.ShapeDtypeStruct((), jnp.float32)
    found, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), x, level)
    assert found.shape == (32, 24, 2) and found.dtype == jnp.float32


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (ConditionalUNet(), "32x30 image does not divide"),
        (ConditionalUNet(blocks=(1, 2)), r"blocks=\(1, 2\): need one number for each"),
    ],
    ids=["shape", "blocks"],
)
def test_wrong_settings_are_refused(net, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((32, 30, 3)), 0.0)


def test_untrained_output_is_zero(apply, x):
    params = jax.jit(SMALL.init)(jax.random.key(1), x, 0.3, 1)
    assert float(jnp.abs(apply(params, x, 0.3, 1)).max()) == 0


def test_it_sees_its_noise_level_and_its_label(params, apply, x):
    found = {label: apply(params, x, 0.3, label) for label in range(4)}
    for a in range(4):
        for b in range(a):
            assert float(jnp.abs(found[a] - found[b]).max()) > 1e-3
    assert float(jnp.abs(apply(params, x, -0.6, 0) - found[0]).max()) > 1e-3


def test_the_null_label_adds_nothing(params, apply, x):
    null = apply(params, x, 0.3, SMALL.classes)
    np.testing.assert_allclose(apply(params, x, 0.3, None), null, 1e-5, 1e-6)
    rows = params["params"]["label"]["kernel"]
    other = {"params": params["params"] | {"label": {"kernel": 2 * rows + 1}}}
    np.testing.assert_array_equal(apply(other, x, 0.3, SMALL.classes), null)
    # Nor does a class whose row is zero.
    other["params"]["label"] = {"kernel": jnp.asarray(rows).at[1].set(0)}
    np.testing.assert_allclose(apply(other, x, 0.3, 1), null, 1e-5, 1e-6)


def test_vmap_is_a_loop(params, apply, x):
    images = jnp.stack([x, -x, 2 * x])
    levels, labels = jnp.array([0.3, -0.2, 0.9]), jnp.array([0, 3, 2])
    batch = jax.jit(jax.vmap(SMALL.apply, (None, 0, 0, 0)))
    found = batch(params, images, levels, labels)
    for row, *given in zip(found, images, levels, labels, strict=True):
        np.testing.assert_allclose(row, apply(params, *given), 1e-4, 1e-5)


def test_it_computes_in_the_dtype_it_is_given(params, apply, x):
    low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    found = apply(low, x.astype(jnp.bfloat16), 0.3, 1)
    assert found.dtype == jnp.bfloat16
    exact = apply(params, x, 0.3, 1)
    gap = jnp.linalg.norm(found.astype(jnp.float32) - exact)
    assert gap <= 0.05 * jnp.linalg.norm(exact)


def test_group_norm_is_the_plain_formula():
    x = 3 + 2 * jax.random.normal(jax.random.key(2), (5, 4, 48))  # 16 groups of 3
    rng = np.random.default_rng(0)
    gamma, beta, scale, shift = rng.standard_normal((4, 48))
    own = {"params": {"scale": jnp.float32(gamma), "bias": jnp.float32(beta)}}
    given = jnp.float32(scale), jnp.float32(shift)
    groups = np.asarray(x, np.float64).reshape(20, 16, 3)
    mean = groups.mean((0, 2), keepdims=True)
    std = np.sqrt(groups.var((0, 2), keepdims=True) + 1e-5)
    plain = ((groups - mean) / std).reshape(5, 4, 48) * gamma + beta
    found = GroupNorm().apply(own, x, *given)
    np.testing.assert_allclose(found, plain * scale + shift, 1e-4, 1e-4)
    theirs = nn.GroupNorm(16, epsilon=1e-5, reduction_axes=(-3, -2, -1))
    expected = theirs.apply(own, x)
    np.testing.assert_allclose(GroupNorm().apply(own, x), expected, 1e-4, 1e-4)


def shipped():
    if not WEIGHTS.is_file():
        pytest.skip(f"{WEIGHTS} is absent")
    params, record = load_weights(WEIGHTS)
    settings = {k: v for k, v in record["net"].items() if k != "name"}
    return ConditionalUNet(**settings), params, record


def test_shipped_weights_fit_their_network():
    net, params, _ = shipped()
    x = jnp.zeros((32, 32, 3))
    own = jax.eval_shape(net.init, jax.random.key(0), x, 0.0, 0)
    check_fit(WEIGHTS, params, own)
    assert WEIGHTS.stat().st_size <= 16e6


def test_shipped_errors_fall_short_of_noise_and_do_not_grow_on_held_out_images():
    _, _, record = shipped()
    table = {name: np.array(row) for name, row in record["errors"].items()}
    assert np.all(np.diff(table["levels"]) > 0) and np.all(np.diff(table["test"]) > 0)
    assert np.all(table["test"] < table["levels"] ** 2)
    assert np.all(table["test"] < 1.03 * table["train"])  # not learnt by heart
    # What a label tells shows from sigma .04 on.
    late = table["levels"] > 0.04
    assert np.all(table["test_labelled"][late] < table["test"][late])


@pytest.mark.slow
def test_shipped_prior_denoises_and_guidance_moves(shared_data):
    net, params, record = shipped()
    count, sigma = 8, 0.1
    with np.load(shared_data / "data" / "cifar10_test.npz") as file:
        blob, ends = file["jpeg"].tobytes(), file["offsets"]
        labels = jnp.asarray(file["labels"][:count].astype(np.int32))
    parts = [blob[a:b] for a, b in itertools.pairwise(ends[: count + 1])]
    images = [np.asarray(Image.open(io.BytesIO(part))) for part in parts]
    x0 = jnp.float32(np.stack(images) / 255)
    s = record["prior"]["sigma_data"]

    @functools.partial(jax.vmap, in_axes=(0, None, 0))
    def denoise(x, sigma, label):
        x, sigma = 2 * x - 1, 2 * sigma
        total = jnp.sqrt(sigma**2 + s**2)
        f = net.apply(params, x / total, jnp.log(sigma) / 4, label)
        return (((s / total) ** 2 * x + sigma * s / total * f) + 1) / 2

    denoise = jax.jit(denoise)
    noise = jax.random.normal(jax.random.key(3), x0.shape)
    null = jnp.full(count, net.classes)
    x = x0 + sigma * noise
    error = jnp.mean((denoise(x, sigma, null) - x0) ** 2)
    # .0011 on all test images: a ninth of the noise; eight images spread by a third.
    assert error < 0.0018
    # At high noise the right label pulls closer, and a wrong one elsewhere.
    x = x0 + 2 * noise
    none, own, other = (denoise(x, 2.0, y) for y in (null, labels, (labels + 1) % 10))
    errors = [float(jnp.mean((a - x0) ** 2)) for a in (none, own, other)]
    assert errors[1] < errors[0] < errors[2]
    assert float(jnp.mean((own - other) ** 2)) > 1e-3
