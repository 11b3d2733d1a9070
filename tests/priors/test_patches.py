"""The patch prior: which pixels a patch sees, where its result goes."""

import flax.linen as nn
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.convert import edm
from klip_jax.priors.patches import Patches, positions

SHAPE, PATCH, PAD = (20, 13, 2), 6, 4


class MeanNet(nn.Module):
    """Sees its whole patch, its place and its noise level."""

    @nn.compact
    def __call__(self, x, noise_level):
        image, place = x[..., :2], x[..., 2:]
        return jnp.sin(image + 3 * place) + image.mean((0, 1)) + noise_level


PRIOR = Patches({}, MeanNet(), patch=PATCH, pad=PAD)


def by_hand(canvas, sigma, offset):
    """One patch after the other, as the formula says."""
    total, net = np.sqrt(sigma**2 + 0.25), jax.jit(MeanNet().apply)
    place, found = np.asarray(positions(*canvas.shape[:2])), np.zeros_like(canvas)
    inside = np.zeros(canvas.shape[:2], bool)
    inside[PAD:-PAD, PAD:-PAD] = True
    for row in range(offset[0], canvas.shape[0] - PATCH + 1, PATCH):
        for column in range(offset[1], canvas.shape[1] - PATCH + 1, PATCH):
            at = np.s_[row : row + PATCH, column : column + PATCH]
            seen = np.concatenate([canvas[at] / total, place[at]], -1)
            f = net({}, seen, np.log(sigma) / 4)
            found[at] = 0.25 / total**2 * canvas[at] + sigma / 2 / total * f
    return np.where(inside[..., None], found, 0)


@pytest.mark.parametrize("offset", [(0, 0), (3, 1)])
def test_patches_are_put_where_they_came_from(offset):
    rng = np.random.default_rng(0)
    canvas = rng.normal(size=(28, 21, 2)).astype(np.float32)
    sigma = jnp.float32(0.7)
    found = jax.jit(PRIOR.denoise_canvas)(canvas, sigma, jnp.array(offset))
    np.testing.assert_allclose(found, by_hand(canvas, 0.7, offset), atol=2e-6)


def test_it_denoises_images_from_centred_patches():
    x = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    margins = ((PAD, PAD), (PAD, PAD), (0, 0))
    offset = [n // 2 for n in PRIOR.offsets(SHAPE)]
    expected = by_hand(np.pad(x, margins), 0.7, offset)[PAD:-PAD, PAD:-PAD]
    denoised = jax.jit(lambda x: PRIOR(x, jnp.float32(0.7)))(x)
    assert denoised.shape == SHAPE and denoised.dtype == jnp.float32
    np.testing.assert_allclose(denoised, expected, atol=2e-6)


def test_training_draws_offsets_and_the_noise_around():
    x = jnp.asarray(np.random.default_rng(1).normal(size=SHAPE), jnp.float32)
    call = jax.jit(lambda key: PRIOR.denoise_in_training(key, x, jnp.float32(0.7)))
    first, again, other = (call(jax.random.key(i)) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 1e-2


def test_offsets_are_those_of_the_reference():
    assert Patches({}, None).offsets((256, 256, 1)) == (24, 24)
    assert Patches({}, None, patch=24, pad=8).offsets((64, 64, 1)) == (8, 8)
    for side in range(5, 60):
        if (count := -(-(side + PAD) // PATCH) * PATCH) <= side + 2 * PAD:
            (limit, _) = PRIOR.offsets((side, side, 1))
            # The first covers the whole image, and so does the last.
            assert 0 + count >= PAD + side and limit - 1 <= PAD
            assert limit - 1 + count <= side + 2 * PAD


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Patches({}, None, patch=0), "patch=0"),
        (lambda: Patches({}, None, sigma_data=0.0), "sigma_data=0.0"),
        (lambda: Patches({}, None, patch=50, pad=2).offsets((56, 56)), "cannot cover"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_the_network_of_the_reference(shared_data):
    folder = shared_data / "golden"
    weights = edm.load(folder / "padis_net.safetensors", size=64, patch=24, pad=8)
    net, params = golden.network(weights)
    with np.load(folder / "padis_64.npz") as saved:
        pos = golden.hwc(saved["latents_pos"])[0]
    np.testing.assert_allclose(positions(80, 80), pos, atol=2e-7)
    with np.load(folder / "padis_net_io.npz") as saved:
        x, pos, expected = (golden.hwc(saved[k])[0] for k in ("x", "pos", "D"))
        sigma = float(saved["sigma"])
    total = np.float32(np.sqrt(sigma**2 + 0.25))
    seen = np.concatenate([x / total, pos], -1)
    f = jax.jit(net.apply)(params, seen, jnp.float32(np.log(sigma) / 4))
    found = 0.25 / total**2 * x + sigma / 2 / total * np.asarray(f)
    assert golden.gap(found, expected) <= 1e-5  # observed 7e-7
