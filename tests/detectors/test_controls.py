import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.detectors.controls import controls
from klip_jax.filters import pool, smooth, white_noise_passed
from klip_jax.operators.identity import Identity
from klip_jax.priors.analytic import Gaussian

SHAPE = (8, 10, 2)
jitted = jax.jit(controls, static_argnames=("scale", "emphasis", "pooling"))
NAMES = {
    "intensity",
    "intensity_inverted",
    "intensity_distance",
    "gradient",
    "residual",
    "posterior_std",
    "denoised_distance",
}


@pytest.fixture(scope="module")
def parts():
    keys = jax.random.split(jax.random.key(0), 3)
    mean = jax.random.uniform(keys[0], SHAPE)
    std = jax.random.uniform(keys[1], SHAPE)
    y = mean + jax.random.normal(keys[2], SHAPE)
    d = mean.size
    prior = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(d), jnp.full(d, 0.04))
    eligible = jnp.zeros(SHAPE[:2], bool).at[2:5, 3:7].set(True)
    return y, Identity(SHAPE), prior, mean, std, eligible


@pytest.mark.parametrize(("emphasis", "pooling"), [(0.0, 0.0), (0.3, 0.0), (0.3, 2.0)])
def test_each_map_is_what_it_says(parts, emphasis, pooling):
    y, _, _, mean, std, eligible = parts
    found = jitted(*parts, scale=1.5, emphasis=emphasis, pooling=pooling)

    def energy(v):
        filtered = smooth(v, 1.5) ** 2 / white_noise_passed(1.5)
        mixed = (1 - emphasis) * v**2 + emphasis * filtered
        return np.asarray(pool(mixed.sum(-1), pooling))

    grey = np.asarray(mean).mean(-1)
    median = np.median(grey[np.asarray(eligible)])
    rows, columns = np.gradient(grey)
    # At sigma = 0.1 the white prior keeps 0.04 / 0.05 of a deviation from its mean.
    moved = (mean - 0.5) * (1 - 0.04 / 0.05)
    expected = {
        "intensity": grey,
        "intensity_inverted": -grey,
        "intensity_distance": np.abs(grey - median),
        "gradient": rows**2 + columns**2,
        "residual": energy(y - mean),
        "posterior_std": np.sqrt((np.asarray(std) ** 2).mean(-1)),
        "denoised_distance": energy(moved),
    }
    assert found.keys() == expected.keys() == NAMES
    for name, control in found.items():
        assert control.shape == SHAPE[:2]
        np.testing.assert_allclose(
            control, expected[name], rtol=1e-4, atol=1e-6, err_msg=name
        )


def test_without_eligible_tissue_the_whole_image_counts(parts):
    *rest, eligible = parts
    found = jitted(*rest, jnp.zeros_like(eligible))["intensity_distance"]
    grey = np.asarray(parts[3]).mean(-1)
    np.testing.assert_allclose(found, np.abs(grey - np.median(grey)), atol=1e-6)


def test_vmap_is_a_loop(parts):
    y, operator, prior, mean, std, eligible = parts
    batch = [jnp.stack([a, a[::-1]]) for a in (mean, std, eligible)]
    mapped = jax.vmap(lambda *a: jitted(y, operator, prior, *a))(*batch)
    for i in range(2):
        one = jitted(y, operator, prior, *(a[i] for a in batch))
        for name in NAMES:
            np.testing.assert_allclose(mapped[name][i], one[name], rtol=1e-5, atol=1e-6)
