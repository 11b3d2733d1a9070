"""LPIPS and DISTS against saved runs, at full width and on a small network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import assert_ok, hwc
from lab import golden_parts
from safetensors.numpy import load_file

from klip_jax.convert import vgg
from klip_jax.distances import base_vgg
from klip_jax.distances.base_vgg import VGG16
from klip_jax.distances.perceptual import DISTS, LPIPS

of = jax.jit(lambda distance, a, b: distance(a, b))


@pytest.fixture
def small(shared_data, tmp_path):
    """Files of a small network as torchvision, lpips and DISTS_pytorch name them."""
    arrays = load_file(shared_data / "golden" / "dg_vgg_small.safetensors")
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    lines = {
        f"lin{k}.model.1.weight": arrays[f"lpips_lin{k}"].astype(np.float32)
        for k in range(5)
    }
    both = {name: arrays[f"dists_{name}"] for name in ("alpha", "beta")}
    np.savez(tmp_path / "lin.npz", **lines)
    np.savez(tmp_path / "dists.npz", **both)
    network = shared_data / "golden" / "dg_vgg_small.safetensors"
    return network, tmp_path / "dists.npz", tmp_path / "lin.npz"


def pairs(images):
    """Return the pairs of images that a run compared, channels last, in [0, 1]."""
    return jnp.asarray(hwc(images[:, 1])), jnp.asarray(hwc(images[:, 0]))


def test_scores_of_a_run_on_a_small_network(small, shared_data):
    network, weights, lines = small
    run = np.load(shared_data / "golden" / "dg_gdm_exp61.npz")
    distance = vgg.dists(network, weights)
    found = [of(distance, a, b) for a, b in zip(*pairs(run["imgr"]), strict=True)]
    # Rounded to float16, their alpha and beta do not quite sum to 1.
    total = sum(float(array.sum()) for array in vgg.read(weights).values())
    assert 0 < abs(total - 1) < 1e-4
    expected = run["score_dists"] / total
    np.testing.assert_allclose(1 - np.array(found), expected, atol=1e-6)
    run = np.load(shared_data / "golden" / "dg_ldm_variants.npz")
    distance = vgg.lpips(network, lines)
    images = pairs(run["aux_w3_imgr01"])
    assert len(images[0]) == 2
    found = [of(distance, a, b) for a, b in zip(*images, strict=True)]
    expected = -run["aux_w3_score_lpips"][: len(found)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_dists_at_full_width(shared_data):
    assert_ok(golden_parts.dists_full(shared_data / "golden"))


def test_equal_images_have_no_distance_and_order_does_not_matter(small):
    network, weights, lines = small
    # Of sizes that are compiled already.
    for distance, size in (
        (vgg.dists(network, weights), 28),
        (vgg.lpips(network, lines), 96),
    ):
        a, b = jax.random.uniform(jax.random.key(0), (2, size, size, 3))
        assert abs(float(of(distance, a, a))) < 1e-6 < float(of(distance, a, b))
        np.testing.assert_allclose(of(distance, a, b), of(distance, b, a), rtol=1e-5)


def test_l2_pooling_keeps_the_mean_square_inside():
    found = base_vgg._l2(jnp.full((8, 8, 2), 0.3))
    assert found.shape == (4, 4, 2)
    np.testing.assert_allclose(found[1:, 1:], 0.3, rtol=1e-6)


def test_weights_that_do_not_fit_are_told(small, tmp_path):
    network, weights, lines = small
    with pytest.raises(FileNotFoundError, match=r"no such file; klip_jax.convert.vgg"):
        vgg.lpips(tmp_path / "none.pth", lines)
    with pytest.raises(ValueError, match=r"dists.npz: has no 'features.0.weight'"):
        vgg.dists(weights, weights)
    with pytest.raises(ValueError, match=r"lin.npz: has no 'alpha'"):
        vgg.dists(network, lines)
    np.savez(tmp_path / "short.npz", alpha=np.ones(5), beta=np.ones(5))
    with pytest.raises(ValueError, match=r"alpha has 5 numbers, not 107"):
        vgg.dists(network, tmp_path / "short.npz")
    (tmp_path / "text.safetensors").write_text("nothing")
    with pytest.raises(ValueError, match="not readable as weights"):
        vgg.read(tmp_path / "text.safetensors")
    with pytest.raises(ValueError, match="pooling='mean': must be of"):
        VGG16("mean").init(jax.random.key(0), jnp.zeros((2, 2, 3)))


def test_both_are_of_their_own_kind():
    assert LPIPS.__dataclass_fields__["net"].default.pooling == "max"
    assert DISTS.__dataclass_fields__["net"].default.pooling == "l2"
