"""ResNet: sizes of the published ones, frozen norms, the shipped weights."""

import io
import itertools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from klip_jax.checkpoint import check_fit, load_weights
from klip_jax.classifiers.resnet import EPSILON, BasicBlock, ResNet

WEIGHTS = Path(__file__).parents[2] / "checkpoints" / "cifar10_resnet18.safetensors"
SMALL = ResNet((1, 1), width=4, classes=3)


def shapes(net, shape):
    return jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(shape))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def random_variables(net, shape):
    """Random, with variances that are positive and norms that are not the identity."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape)
        if leaf.ndim > 1:
            noise *= np.prod(leaf.shape[:-1]) ** -0.5
        if path[-1].key in ("var", "scale"):
            noise = np.exp(0.3 * noise)
        return jnp.float32(noise)

    return jax.tree.map_with_path(draw, shapes(net, shape))


@pytest.fixture(scope="module")
def variables():
    return random_variables(SMALL, (8, 8, 3))


@pytest.mark.parametrize(
    ("net", "size", "parameters", "grid"),
    [
        (ResNet(), 32, 11_173_962, 4),  # as OpenOOD's ResNet18_32x32
        (ResNet((3, 4, 6, 3), 64, 1000, "bottleneck", "imagenet"), 224, 25_557_032, 7),
    ],
    ids=["ResNet-18 of CIFAR", "ResNet-50 of torchvision"],
)
def test_published_networks_have_their_numbers_of_parameters(
    net, size, parameters, grid
):
    shape = (size, size, 3)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    logits, own = jax.eval_shape(net.init_with_output, jax.random.key(0), x)
    assert count(own["params"]) == parameters
    assert logits.shape == (net.classes,) and logits.dtype == jnp.float32
    maps = jax.eval_shape(lambda v, x: net.apply(v, x, method="maps"), own, x)
    features = 2048 if net.block == "bottleneck" else 512
    assert maps.shape == (grid, grid, features)


@pytest.mark.parametrize("setting", [dict(block="wide"), dict(stem="patch")], ids=str)
def test_wrong_settings_are_refused(setting):
    (name, value), *_ = setting.items()
    with pytest.raises(ValueError, match=f"{name}='{value}': must be of"):
        shapes(ResNet(**setting), (8, 8, 3))


def test_logits_are_the_head_of_the_mean_of_the_maps(variables):
    x = jax.random.uniform(jax.random.key(1), (8, 8, 3))
    apply = jax.jit(SMALL.apply, static_argnames="method")
    maps = apply(variables, x, method="maps")
    features = apply(variables, x, method="features")
    assert maps.shape == (4, 4, 8) and bool(jnp.all(maps >= 0))
    np.testing.assert_allclose(features, maps.mean((0, 1)), 1e-5)
    dense = variables["params"]["dense"]
    expected = features @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(apply(variables, x), expected, 1e-4, 1e-5)


def test_frozen_norms_fold_into_their_convolutions():
    # conv(x) gamma / sqrt(var + eps) + (beta - mean gamma / sqrt(var + eps)).
    block = BasicBlock(6, 2, False, None)
    own = random_variables(block, (8, 8, 4))
    x = jax.random.normal(jax.random.key(2), (8, 8, 4))

    def folded(h, conv, norm, stride, size):
        params, stats = own["params"], own["batch_stats"][norm]
        gain = params[norm]["scale"] / np.sqrt(stats["var"] + EPSILON)
        bias = params[norm]["bias"] - stats["mean"] * gain
        kernel = params[conv]["kernel"] * gain
        pad = size // 2
        convolved = jax.lax.conv_general_dilated(
            np.pad(h, ((pad, pad), (pad, pad), (0, 0)))[None],
            kernel,
            (stride, stride),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return convolved[0] + bias

    h = nn.relu(folded(x, "conv_0", "norm_0", 2, 3))
    h = folded(h, "conv_1", "norm_1", 1, 3)
    short = folded(x, "shortcut_conv", "shortcut_norm", 2, 1)
    expected = nn.relu(h + short)
    np.testing.assert_allclose(block.apply(own, x), expected, 1e-4, 1e-4)


def test_vmap_is_a_loop_and_other_images_do_not_matter(variables):
    x = jax.random.uniform(jax.random.key(3), (3, 8, 8, 3))
    one = jax.jit(SMALL.apply)
    batch = jax.jit(jax.vmap(SMALL.apply, (None, 0)))(variables, x)
    for image, logits in zip(x, batch, strict=True):
        np.testing.assert_allclose(logits, one(variables, image), 1e-4, 1e-5)


def test_training_takes_the_statistics_of_the_batch(variables):
    net = SMALL.copy(training=True, batch_axis="batch")
    x = jax.random.uniform(jax.random.key(4), (6, 8, 8, 3))

    def apply(image):
        return net.apply(variables, image, mutable=["batch_stats"])

    mapped = jax.vmap(apply, axis_name="batch", out_axes=(0, None))
    _, updated = jax.jit(mapped)(x)
    kernel = variables["params"]["stem_conv"]["kernel"]
    h = jax.lax.conv_general_dilated(
        (x - 0.5) / 0.25, kernel, (1, 1), "SAME", dimension_numbers=NHWC
    )
    old = variables["batch_stats"]["stem_norm"]
    new = updated["batch_stats"]["stem_norm"]
    for name, own in (("mean", h.mean((0, 1, 2))), ("var", h.var((0, 1, 2)))):
        expected = 0.9 * old[name] + 0.1 * own
        np.testing.assert_allclose(new[name], expected, 1e-4, 1e-5)


NHWC = ("NHWC", "HWIO", "NHWC")


def shipped():
    if not WEIGHTS.is_file():
        pytest.skip(f"{WEIGHTS} is absent")
    variables, record = load_weights(WEIGHTS)
    settings = {k: v for k, v in record["net"].items() if k != "name"}
    return ResNet(**settings), variables, record


def test_shipped_weights_fit_and_hold_what_the_record_says():
    net, variables, record = shipped()
    check_fit(WEIGHTS, variables, shapes(net, (32, 32, 3)))
    assert count(variables) * 2 <= 16e6 >= WEIGHTS.stat().st_size
    assert 0.9 < record["accuracy"]["test"] < 0.92


def right(shared_data, images):
    """Which of the first test images the shipped classifier names rightly."""
    net, variables, _ = shipped()
    with np.load(shared_data / "data" / "cifar10_test.npz") as file:
        blob, ends = file["jpeg"].tobytes(), file["offsets"]
        labels = file["labels"][:images]
    parts = [blob[a:b] for a, b in itertools.pairwise(ends[: images + 1])]
    x = np.stack([np.asarray(Image.open(io.BytesIO(part))) for part in parts])
    apply = jax.jit(jax.vmap(net.apply, (None, 0)))
    logits = [
        apply(variables, jnp.float32(x[i : i + 20] / 255)) for i in range(0, images, 20)
    ]
    return np.concatenate(logits).argmax(-1) == labels


def test_shipped_classifier_names_test_images(shared_data):
    # At an accuracy of .912, 14 of 20 or fewer have probability .001.
    assert right(shared_data, 20).sum() >= 15


@pytest.mark.slow
def test_shipped_classifier_has_its_accuracy(shared_data):
    # Standard error .020 of 200 images.
    assert abs(right(shared_data, 200).mean() - 0.912) <= 3 * 0.02
