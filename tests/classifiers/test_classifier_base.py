"""The classifier that detectors see, and the mask of a class activation map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.classifiers.base import Classifier, cam_mask, grad_cam, scaled_cam
from klip_jax.classifiers.resnet import ResNet


@pytest.fixture(scope="module")
def classifier():
    net = ResNet((1,), width=4, classes=3)
    variables = jax.jit(net.init)(jax.random.key(0), jnp.zeros((8, 8, 3)))
    return Classifier(net, variables, (8, 8, 3))


def test_logits_are_the_head_of_the_features(classifier):
    x = jax.random.uniform(jax.random.key(1), (8, 8, 3))
    weight, bias = classifier.head
    assert weight.shape == (4, 3) and classifier.classes == 3
    logits, features, maps, label = jax.jit(
        lambda c, x: (c.logits(x), c.features(x), c.maps(x), c.predict(x))
    )(classifier, x)
    np.testing.assert_allclose(features, maps.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(logits, features @ weight + bias, rtol=1e-5)
    assert label == logits.argmax() and label.dtype == jnp.int32


def test_grad_cam_weighs_the_maps_by_the_head(classifier):
    # The head is linear in the mean of the maps: the weights are its column / pixels.
    x = jax.random.uniform(jax.random.key(5), (8, 8, 3))
    cam, maps = jax.jit(lambda c, x, y: (grad_cam(c, x, y), c.maps(x)))(
        classifier, x, jnp.int32(2)
    )
    expected = jax.nn.relu(maps @ classifier.head[0][:, 2]) / 64
    assert cam.shape == (8, 8) and float(cam.max()) > 0
    np.testing.assert_allclose(cam, expected, 1e-4, 1e-6)


@pytest.fixture
def runs(shared_data):
    golden = shared_data / "golden"
    return [np.load(golden / f"dg_ldm_{name}.npz") for name in ("exp225", "variants")]


def test_masks_are_those_of_the_release(runs):
    run, others = runs
    for i, (act, grad) in enumerate(zip(run["act"], run["gradact"], strict=True)):
        cam = jnp.einsum("c,chw->hw", grad.mean((1, 2)), act)
        scaled = scaled_cam(cam, (96, 96))
        # Of the resized map every fourth pixel was kept.
        np.testing.assert_allclose(scaled[::4, ::4], run["cam_scaled"][i], atol=2e-6)
        image = cam_mask(cam, (96, 96), (96, 96), 0.3)
        np.testing.assert_array_equal(image, run["mask"][i])
        latent = cam_mask(cam, (96, 96), (24, 24), 0.3)
        np.testing.assert_array_equal(latent, run["mask_latent"][i].squeeze())
        negative = cam_mask(cam, (96, 96), (24, 24), -0.3)
        np.testing.assert_array_equal(
            negative, others["negcut_mask_latent"][i].squeeze()
        )


def test_a_flat_map_masks_nothing():
    flat = jnp.full((2, 2), -1.0)
    assert not cam_mask(flat, (8, 8), (4, 4), 0.0).any()


def test_a_cut_that_no_map_can_pass_is_refused():
    with pytest.raises(ValueError, match=r"cut=1.0: must be in \(-1, 1\)"):
        cam_mask(jnp.zeros((2, 2)), (8, 8), (4, 4), 1.0)
