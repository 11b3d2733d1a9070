import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.blocks import block_sum, top_mean
from klip_jax.detectors import controls
from klip_jax.filters import pool, smooth, white_noise_passed
from klip_jax.operators.identity import Identity
from klip_jax.priors.analytic import Gaussian
from klip_jax.types import Given, Posterior, Scan

SHAPE = (8, 10, 2)
run = jax.jit(lambda detector, given: detector(jax.random.key(0), given))


@pytest.fixture(scope="module")
def given():
    keys = jax.random.split(jax.random.key(0), 3)
    mean = jax.random.uniform(keys[0], SHAPE)
    std = jax.random.uniform(keys[1], SHAPE)
    y = mean + jax.random.normal(keys[2], SHAPE)
    d = mean.size
    prior = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(d), jnp.full(d, 0.04))
    eligible = jnp.zeros(SHAPE[:2], bool).at[2:5, 3:7].set(True)
    posterior = Posterior(mean[None], mean, std, jnp.ones(()), jnp.int32(-1))
    return Given(prior, Scan(Identity(SHAPE), y, 1.0), posterior, eligible=eligible)


def expected(given, filter_weight, pool_width):
    mean, std = given.posterior.mean, np.asarray(given.posterior.std)

    def energy(v):
        filtered = smooth(v, 1.5) ** 2 / white_noise_passed(1.5)
        mixed = (1 - filter_weight) * v**2 + filter_weight * filtered
        return np.asarray(pool(mixed.sum(-1), pool_width))

    grey = np.asarray(mean).mean(-1)
    rows, columns = np.gradient(grey)
    return {
        "Intensity": grey,
        "IntensityInverted": -grey,
        "EqualisedIntensity": np.argsort(np.argsort(grey, None)).reshape(8, 10) / 80,
        "IntensityDistance": np.abs(grey - np.median(grey[given.eligible])),
        "Gradient": rows**2 + columns**2,
        "PosteriorSpread": np.sqrt((std**2).mean(-1)),
        "Residual": energy(given.scan.y - mean),
        # At sigma = 0.1 the white prior keeps 0.04 / 0.05 of a deviation from its mean.
        "DenoisedDistance": energy((mean - 0.5) * (1 - 0.04 / 0.05)),
    }


@pytest.mark.parametrize(("weight", "width"), [(0.0, 0.0), (0.3, 0.0), (0.3, 2.0)])
def test_each_map_is_what_it_says(given, weight, width):
    for name, heatmap in expected(given, weight, width).items():
        settings = dict(block=2, top_share=0.1)
        if name in ("Residual", "DenoisedDistance"):
            settings |= dict(filter_width=1.5, filter_weight=weight, pool_width=width)
        found = run(getattr(controls, name)(**settings), given)
        close = dict(rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(found.heatmap, heatmap, **close)
        score = top_mean(block_sum(jnp.asarray(heatmap), 2), 0.1)
        np.testing.assert_allclose(found.score, score, **close)
        assert np.isnan(found.stderr)


def test_maps_may_be_pooled(given):
    plain, pooled = (
        run(controls.Gradient(block=2, pool_width=width), given).heatmap
        for width in (0.0, 1.5)
    )
    np.testing.assert_allclose(pooled, pool(plain, 1.5), rtol=1e-5)


def test_without_eligible_tissue_the_whole_image_counts(given):
    grey = np.asarray(given.picture).mean(-1)
    for nowhere in (None, jnp.zeros(SHAPE[:2], bool)):
        found = run(
            controls.IntensityDistance(block=2), given._replace(eligible=nowhere)
        )
        np.testing.assert_allclose(
            found.heatmap, np.abs(grey - np.median(grey)), atol=1e-6
        )


def test_random_is_uniform_and_of_the_key():
    given, control = Given(None, image=jnp.zeros((64, 64, 1))), controls.Random()
    one, other = (control(jax.random.key(i), given).heatmap for i in (0, 1))
    assert abs(one.mean() - 0.5) < 5 * 12**-0.5 / 64
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / 64


def test_all_are_controls_and_say_what_they_need():
    names = [n for n in vars(controls) if isinstance(getattr(controls, n), type)]
    own = [getattr(controls, n) for n in names]
    own = [c for c in own if c.__module__ == controls.__name__]
    assert all(kind.control for kind in own)
    assert controls.Residual().needs == ("picture", "scan")
    assert controls.PosteriorSpread().needs == ("posterior",)
    with pytest.raises(ValueError, match="there are none"):
        controls.PosteriorSpread().look(
            jax.random.key(0), Given(None, image=jnp.zeros(SHAPE))
        )
    for wrong, words in (
        (dict(filter_width=-1.0), "filter_width=-1.0: must be in"),
        (dict(filter_weight=2.0), r"filter_weight=2.0: must be in \[0, 1\]"),
        (dict(pool_width=float("inf")), "pool_width=inf"),
        (dict(block=0), "block=0: must be an integer >= 1"),
    ):
        with pytest.raises(ValueError, match=words):
            controls.Residual(**wrong)
