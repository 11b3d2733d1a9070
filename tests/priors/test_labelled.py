"""A prior with labels: what is given, the null label, the loss, what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.priors.base import stratified_levels
from klip_jax.priors.edm import EDM
from klip_jax.priors.epsilon import Epsilon
from klip_jax.priors.labelled import Labelled
from klip_jax.recipe import Cast
from klip_jax.types import Conditional, Denoiser

SHAPE, LAW = (4, 4, 1), dict(log_mean=-1.2, log_std=1.2)
SIGMA = jnp.float32(0.3)


class Net(nn.Module):
    """One layer, and one number added for each label."""

    classes: int = 3
    null_class: bool = True

    @nn.compact
    def __call__(self, x, noise_level, label=None):
        label = self.classes if label is None else label
        h = nn.Conv(1, (3, 3))(x) * noise_level
        return h + nn.Embed(self.classes + 1, 1)(jnp.asarray(label))


class Plain(nn.Module):
    """A network without classes."""

    @nn.compact
    def __call__(self, x, noise_level):
        return nn.Conv(1, (3, 3))(x)


def made(kind, net, **settings):
    level = jnp.zeros(())
    return kind(net.init(jax.random.key(0), jnp.zeros(SHAPE), level), net, **settings)


INNER = {
    "EDM": lambda: made(EDM, Net(), sigma_data=0.4),
    "Epsilon": lambda: made(Epsilon, Net(), betas=np.linspace(1e-4, 0.02, 50)),
}


@pytest.fixture(params=INNER)
def prior(request):
    table = dict(levels=[0.1, 1.0], errors=[0.01, 0.04])
    return Labelled(INNER[request.param]().replace(**table))


def test_one_denoiser_for_each_label(prior):
    x = jax.random.normal(jax.random.key(1), SHAPE)
    assert isinstance(prior, Conditional) and isinstance(prior.given(0), Denoiser)
    one = jax.jit(lambda denoiser: denoiser(x, SIGMA))
    denoised = jnp.stack([one(prior.given(y)) for y in (0, 1, 2, None)])
    assert one._cache_size() == 1  # the label is an argument of one program
    batch = jax.jit(jax.vmap(lambda y: prior.given(y)(x, SIGMA)))(jnp.arange(4))
    np.testing.assert_allclose(batch, denoised, 1e-5, 1e-5)
    for i in range(3):
        assert float(jnp.abs(denoised[i] - denoised[3]).min()) > 1e-3
    np.testing.assert_allclose(denoised[3], one(prior.prior), 1e-5)
    np.testing.assert_allclose(denoised[3], one(prior), 1e-5)
    second = jax.jit(lambda prior, y: prior.given(y)(x, SIGMA))(prior, 2)
    np.testing.assert_allclose(second, denoised[2], 1e-5, 1e-5)
    for denoiser in (prior, prior.given(2)):
        np.testing.assert_allclose(denoiser.variance(1.0), 0.04, rtol=1e-5)


def test_labels_are_dropped_as_often_as_said():
    prior = Labelled(INNER["EDM"]())
    images = jax.random.uniform(jax.random.key(1), (64, *SHAPE))
    labels = jnp.full(64, 1)

    def loss(params, dropout):
        inner = prior.prior.replace(params=params)
        own = prior.replace(prior=inner, label_dropout=dropout)
        return own.loss((images, labels), jax.random.key(2), **LAW)

    gradient = jax.jit(jax.grad(loss))
    for dropout, rows in [(0.0, [1]), (0.5, [1, 3])]:
        table = gradient(prior.params, dropout)["params"]["Embed_0"]["embedding"]
        assert np.flatnonzero(table[:, 0]).tolist() == rows


def test_its_loss_is_that_of_its_prior_at_levels_in_strata():
    prior, n = Labelled(INNER["EDM"](), 0.0), 2
    images = jax.random.uniform(jax.random.key(1), (n, *SHAPE))
    labels = jnp.array([2, 0])

    @jax.jit
    def both(key):
        _, key_sigma, key_noise = jax.random.split(key, 3)
        levels = stratified_levels(key_sigma, n, **LAW)
        expected = 0.0
        for i, own in enumerate(jax.random.split(key_noise, n)):
            law = dict(log_mean=jnp.log(levels[i]), log_std=0.0)
            expected += prior.given(labels[i]).loss(images[i : i + 1], own, **law) / n
        return prior.loss((images, labels), key, **LAW), expected

    np.testing.assert_allclose(*both(jax.random.key(3)), rtol=1e-5)


def test_its_loss_in_half_precision_is_near():
    images = jax.random.uniform(jax.random.key(1), (24, *SHAPE))
    labels, inner = jnp.arange(24) % 3, INNER["EDM"]()

    def loss(params, net):
        own = Labelled(inner.replace(params=params, net=net), 0.5)
        return own.loss((images, labels), jax.random.key(2), **LAW)

    of, half = (
        jax.jit(jax.value_and_grad(loss), static_argnums=1),
        Cast(inner.net, "bfloat16"),
    )
    whole, _ = of(inner.params, inner.net)
    near, grads = of(inner.params, half)
    assert Labelled(inner.replace(net=half)).classes == 3
    assert near.dtype == jnp.float32 and 0 < abs(near - whole) < 0.02 * whole
    assert {a.dtype for a in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    # Rows of labels and of the null label are told apart.
    rows = grads["params"]["Embed_0"]["embedding"][:, 0]
    assert np.all(np.asarray(rows) != 0)


def test_what_cannot_be_is_refused():
    prior = Labelled(INNER["EDM"]())
    assert prior.classes == 3
    with pytest.raises(ValueError, match=r"label=4: must be one of 0 \.\. 2, or None"):
        prior.given(4)
    with pytest.raises(ValueError, match="label=-1"):
        prior.given(-1)
    with pytest.raises(ValueError, match="Plain: a network without classes"):
        Labelled(made(EDM, Plain()))
    with pytest.raises(ValueError, match=r"label_dropout=1\.0: must lie in \[0, 1\)"):
        Labelled(INNER["EDM"](), 1.0)
    always = Labelled(made(EDM, Net(null_class=False)))
    with pytest.raises(ValueError, match="label=None: this network was trained with"):
        always.given(None)


@pytest.mark.slow
def test_the_shipped_prior_of_ten_classes():
    from klip_jax import hub

    prior, record = hub.load("cifar10_32")
    assert isinstance(prior, Conditional) and prior.classes == 10
    x = jax.random.uniform(jax.random.key(0), tuple(record["image_shape"]))
    x = x + jax.random.normal(jax.random.key(1), x.shape)

    denoised = jax.jit(lambda y: prior.given(y)(x, 1.0))
    null = denoised(10)
    np.testing.assert_allclose(null, prior.prior(x, 1.0), atol=1e-4)
    assert float(jnp.abs(denoised(3) - null).max()) > 1e-2
