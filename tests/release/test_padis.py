import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.operators.mask import Half
from klip_jax.priors.patches import Patches
from klip_jax.release import padis
from klip_jax.sample import sample
from klip_jax.scan import residual
from klip_jax.types import Scan

SHAPE = (6, 6, 1)


class MeanNet(nn.Module):
    @nn.compact
    def __call__(self, x, noise_level):
        return jnp.sin(x[..., :1]) + x.mean() + noise_level


PRIOR = Patches({}, MeanNet(), patch=4, pad=2)
SCAN = Scan(Half(SHAPE), jnp.ones((18, 1)), 1.0)
KEY, SIGMA = jax.random.key(0), jnp.float32(0.6)


def canvas_and_noises():
    x, *noises = jax.random.normal(KEY, (3, 10, 10, 1))
    return x, jnp.stack(noises)


@pytest.mark.slow
def test_a_step_is_langevin_and_a_move_down_the_residual():
    x, noises = canvas_and_noises()
    offsets = jnp.array([[0, 1], [1, 0]])
    found, info = padis.PaDIS(pad=2).move(offsets, noises, x, PRIOR, SCAN, SIGMA)

    shift = 0
    for offset, z in zip(offsets, noises, strict=True):

        def misfit(x, offset=offset):
            x0 = PRIOR.denoise_canvas(x, SIGMA, offset)[2:-2, 2:-2]
            return jnp.linalg.norm(residual(SCAN, x0))

        u = -0.3 * jax.grad(misfit)(x)
        score = (PRIOR.denoise_canvas(x, SIGMA, offset) - x) / SIGMA**2
        alpha = SIGMA**2 / 2
        x = x + u + alpha / 2 * score + jnp.sqrt(alpha) * z
        shift = shift + u[2:-2, 2:-2]
    np.testing.assert_allclose(found, x, atol=1e-5)
    np.testing.assert_allclose(info.shift, shift, atol=1e-6)


def test_recording_adds_a_rounding_error_only():
    x, noises = canvas_and_noises()
    given = jnp.zeros((2, 2), int), noises, 1000 + x, PRIOR, SCAN, SIGMA
    found, info = padis.PaDIS(pad=2).move(*given)
    same, recorded = padis.PaDIS(pad=2, as_recorded=True).move(*given)
    np.testing.assert_array_equal(found, same)
    gap = jnp.abs(info.shift - recorded.shift).max()
    assert 1e-6 < gap < 1e-3


@pytest.mark.slow
def test_samples_do_not_depend_on_their_batch():
    levels = jnp.array([3.0, 0.5, 0.0])

    def chains(n, start):
        def one(i):
            key, sampler = jax.random.fold_in(KEY, i), padis.PaDIS(pad=2, steps=2)
            return sample(key, sampler, PRIOR, levels, SHAPE, scan=SCAN).x

        return jax.vmap(one)(start + jnp.arange(n))

    whole, *parts = jax.jit(lambda: [chains(4, 0), chains(1, 0), chains(3, 1)])()
    assert whole.shape == (4, 10, 10, 1) and bool(jnp.isfinite(whole).all())
    np.testing.assert_allclose(whole, jnp.concatenate(parts), atol=1e-5)
    assert jnp.abs(whole[0] - whole[1]).max() > 0.01


@pytest.mark.parametrize("settings", [dict(pad=0), dict(zeta=0.0), dict(steps=0)])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match="must be positive"):
        padis.PaDIS(**settings)
