"""Distances against saved runs of DiffGuard and DiffNB, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import hwc

from klip_jax.classifiers.base import Classifier
from klip_jax.classifiers.resnet import ResNet
from klip_jax.distances import deep, logits, pixel


@pytest.fixture
def golden(shared_data):
    return lambda name: np.load(shared_data / "golden" / f"dg_{name}.npz")


@pytest.mark.parametrize("name", ["exp61", "noaux"])
def test_scores_of_a_run(golden, name):
    if name == "exp61":
        run, prefix = golden("gdm_exp61"), ""
        images, rows = run["imgr"], (0, 1)
        pair = hwc(images[:, 1]), hwc(images[:, 0])
    else:
        run, prefix = golden("gdm_variants"), "noaux_"
        first = golden("gdm_exp61")["img_uint8"] / np.float32(255)
        pair, rows = (first, hwc(run["noaux_imgr"].reshape(4, 3, 28, 28))), (0, 1)
    a, b = (jnp.float32(images) for images in pair)
    ssim, l2 = (jax.jit(jax.vmap(f))(a, b) for f in (pixel.ssim, pixel.l2))
    # Their variances are E x^2 - (E x)^2 of images shifted to [-1, 1] and back.
    np.testing.assert_allclose(ssim, run[f"{prefix}score_ssim"], atol=1e-5)
    np.testing.assert_allclose(-l2, run[f"{prefix}score_l2"], rtol=2e-6)
    both = (jnp.asarray(run[f"{prefix}logits"][:, row]) for row in rows)
    found = jax.vmap(logits.l1)(*both)
    np.testing.assert_allclose(-found, run[f"{prefix}score_logits"], rtol=1e-6)


def test_distances_of_diffnb(golden):
    run = golden("nb")
    vectors = jnp.asarray(run["logits"])  # [time, image, repeat, class]
    clean = vectors[0]
    between = jax.vmap(jax.vmap(logits.normalised_l1))
    found = [between(clean, later).mean(1) for later in vectors[1:]]
    np.testing.assert_allclose(found, run["dist_global_logits"], atol=2e-6)


def test_psnr_by_its_definition_and_the_threshold_of_diffguard():
    a = jnp.zeros((4, 4, 1))
    np.testing.assert_allclose(pixel.psnr(a, a + 0.1), 20, rtol=1e-6)
    np.testing.assert_allclose(pixel.psnr(a, a + 0.1, peak=10.0), 40, rtol=1e-6)
    # 48.5 "dB" of a peak of 255 are 6.39 of the right one, 2, for images in [-1, 1].
    b = a + 0.958
    wrong, right = (float(pixel.psnr(a, b, peak=peak)) for peak in (255.0, 2.0))
    assert abs(wrong - 48.5) < 0.01 and abs(right - 6.39) < 0.01
    np.testing.assert_allclose(wrong - right, 20 * np.log10(127.5), rtol=1e-5)
    assert np.isinf(pixel.psnr(a, a))


def test_lengths_by_hand():
    a, b = jnp.zeros((2, 2, 1)), jnp.array([[3.0, 0.0], [0.0, -4.0]])[..., None]
    assert pixel.l1(a, b) == 7 and pixel.l2(a, b) == 5
    assert logits.l1(a.ravel(), b.ravel()) == 7 and logits.l2(a.ravel(), b.ravel()) == 5
    found = logits.normalised_l1(jnp.array([2.0, 0.0]), jnp.array([0.0, 9.0]))
    np.testing.assert_allclose(found, 2, rtol=1e-6)


def test_structural_similarity_of_constants_and_large_images():
    # Without variance only the means are compared.
    low, high = jnp.full((12, 16, 2), 0.2), jnp.full((12, 16, 2), 0.6)
    expected = (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4)
    np.testing.assert_allclose(jax.jit(pixel.ssim)(low, high), expected, rtol=1e-3)
    a = jax.random.uniform(jax.random.key(0), (20, 30, 1))
    np.testing.assert_allclose(jax.jit(pixel.ssim)(a, a), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="smaller than its 11"):
        pixel.ssim(a[:10], a[:10])
    large = jnp.repeat(jnp.repeat(a, 30, 0), 30, 1)  # 600 pixels are averaged by 2
    small = jnp.repeat(jnp.repeat(a, 15, 0), 15, 1)
    assert pixel._averaged(large, 2).shape == small.shape
    np.testing.assert_allclose(pixel._averaged(large, 2), small, rtol=1e-6)


@pytest.fixture(scope="module")
def classifier():
    net = ResNet((1,), width=4, classes=3)
    variables = jax.jit(net.init)(jax.random.key(0), jnp.zeros((8, 8, 3)))
    return Classifier(net, variables, (8, 8, 3))


def test_deep_distances_by_their_definitions(classifier):
    a, b = jax.random.uniform(jax.random.key(1), (2, 8, 8, 3))
    b = b.at[:, :5].set(a[:, :5])

    maps = jax.jit(lambda classifier, x: classifier.maps(x))

    @jax.jit
    def every(classifier, a, b):
        names = "difference_map", "maps", "cosine", "l1", "l2"
        return {name: getattr(deep, name)(classifier, a, b) for name in names}

    found, same = every(classifier, a, b), every(classifier, a, a)
    assert all(np.all(np.asarray(value) == 0) for value in same.values())
    one, other = (np.float64(maps(classifier, x)) for x in (a, b))
    # Where no unit is active there is no direction, and nothing differs.
    lengths = (np.linalg.norm(v, axis=-1, keepdims=True) for v in (one, other))
    gap = [v / (n + 1e-30) for v, n in zip((one, other), lengths, strict=True)]
    expected = ((gap[0] - gap[1]) ** 2).sum(-1)
    np.testing.assert_allclose(found["difference_map"], expected, atol=1e-5)
    np.testing.assert_allclose(found["maps"], expected.mean(), rtol=1e-4)
    # Where the images agree, and their neighbours do, nothing differs.
    assert np.all(found["difference_map"][:, :2] == 0)
    one, other = one.mean((0, 1)), other.mean((0, 1))
    cosine = 1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    np.testing.assert_allclose(found["cosine"], cosine, rtol=1e-3)
    np.testing.assert_allclose(found["l1"], np.abs(one - other).sum(), rtol=1e-4)
    np.testing.assert_allclose(found["l2"], np.linalg.norm(one - other), rtol=1e-4)
