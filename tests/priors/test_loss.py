"""Every network prior trains through `loss`: its law, its target, its gradient."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from klip_jax import struct
from klip_jax.priors.base import NetworkPrior, stratified_levels
from klip_jax.priors.edm import EDM
from klip_jax.priors.epsilon import Epsilon
from klip_jax.priors.patches import Patches
from klip_jax.priors.score import Score
from klip_jax.priors.velocity import Velocity

SHAPE, LAW = (8, 8, 1), dict(log_mean=-1.2, log_std=1.2)
BETAS = np.linspace(1e-4, 0.02, 100)


class Net(nn.Module):
    """A network of one layer that knows its noise level."""

    @nn.compact
    def __call__(self, x, noise_level):
        level = jnp.full((*x.shape[:2], 1), noise_level)
        return nn.Conv(1, (3, 3))(jnp.concatenate([x, level], -1))


def params(channels):
    start = jnp.zeros((8, 8, channels)), jnp.zeros(())
    return Net().init(jax.random.key(0), *start)


PRIORS = {
    "EDM": lambda: EDM(params(1), Net(), sigma_data=0.4),
    "Epsilon": lambda: Epsilon(params(1), Net(), betas=BETAS),
    "Velocity": lambda: Velocity(params(1), Net(), betas=BETAS),
    "Score": lambda: Score(params(1), Net()),
    "Patches": lambda: Patches(params(3), Net(), patch=4, pad=2),
}


@pytest.mark.parametrize("name", PRIORS)
def test_a_step_along_the_gradient_lowers_the_loss(name):
    prior = PRIORS[name]()
    images = jax.random.uniform(jax.random.key(1), (4, *SHAPE))

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return prior.replace(params=params).loss(images, jax.random.key(2), **LAW)

    value, gradient = loss(prior.params)
    size = sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))
    assert value.shape == () and value > 0 and size > 0
    step = 1e-3 * value / size
    moved = jax.tree.map(lambda p, g: p - step * g, prior.params, gradient)
    # A thousandth less to first order; the step is small enough for that.
    assert loss(moved)[0] == pytest.approx(0.999 * float(value), rel=2e-4)


@struct.dataclass
class Scaled:
    """A network whose denoiser is a constant times the image."""

    def apply(self, params, x, sigma):
        return params * x / sigma**2  # `Score`: D = (1 + params) x


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_the_loss_is_its_formula(low):
    """D = 0: the loss is the mean of lambda(sigma) |x0|^2 / d in [low, 1]."""
    prior = Score(-1.0, Scaled(), low=low, sigma_data=0.3)
    images = jax.random.uniform(jax.random.key(1), (6, *SHAPE))
    key = jax.random.key(2)
    sigma = stratified_levels(jax.random.split(key)[0], 6, **LAW)
    weight = (sigma**2 + 0.09) / (0.3 * sigma) ** 2
    expected = weight * jnp.mean(((1 - low) * images + low) ** 2, (1, 2, 3))
    loss = jax.jit(lambda images: prior.loss(images, key, **LAW))(images)
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)


def test_levels_are_stratified():
    sigma = stratified_levels(jax.random.key(0), 1000, log_mean=0.5, log_std=2.0)
    u = jax.scipy.special.ndtr((jnp.log(sigma) - 0.5) / 2)
    # One in each thousandth, but for the rounding of its borders.
    np.testing.assert_allclose(np.sort(u) * 1000, np.arange(1000) + 0.5, atol=0.51)
    assert np.std(np.sort(u) * 1000 - np.arange(1000)) > 0.2


class Shifted(EDM):
    """What a user would write: a prior with one more array, and a list of them."""

    bias: Array | None = None
    gains: tuple[Array, ...] = ()

    def denoise(self, x, sigma):
        return super().denoise(self.gains[0] * x, sigma) + self.bias


def test_a_prior_with_one_more_array_works_on_every_call():
    traces = []

    @jax.jit
    def denoise(prior, x):
        traces.append(1)
        return prior(x, 0.5)

    x = jax.random.uniform(jax.random.key(0), SHAPE)
    plain = EDM(params(1), Net())
    for bias in (0.0, 0.25, 0.5):
        gains = (jnp.ones(()),)
        prior = Shifted(params(1), Net(), bias=jnp.full(SHAPE, bias), gains=gains)
        expected = plain(x, 0.5) + bias / 2
        np.testing.assert_allclose(denoise(prior, x), expected, atol=1e-5)
    assert len(traces) == 1


@pytest.mark.parametrize("decorate", [struct.dataclass, flax.struct.dataclass])
def test_decorating_a_prior_again_changes_nothing(decorate):
    @decorate
    class Twice(EDM):
        bias: Array | None = None

    prior = Twice(params(1), Net(), bias=jnp.ones(()))
    assert len(jax.tree.leaves(prior)) == len(jax.tree.leaves(EDM({}, Net()))) + 3


def test_a_prior_without_denoise_cannot_train():
    images = jnp.zeros((2, *SHAPE))
    with pytest.raises(NotImplementedError, match="does not define denoise"):
        NetworkPrior({}, Net()).loss(images, jax.random.key(0), **LAW)
