"""Anything that denoises is a prior, on every call; what is not says why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from klip_jax import struct
from klip_jax.priors.analytic import Gaussian
from klip_jax.priors.function import prior
from klip_jax.types import Conditional, Denoiser

SHAPE = (4, 4, 1)
X = jnp.linspace(-1.0, 2.0, 16).reshape(SHAPE)


def shrink(x, sigma):
    return x / (1 + sigma**2)


class Plain:
    """An object that is no pytree and knows its error."""

    def __init__(self, gain):
        self.gain = gain

    def __call__(self, x, sigma):
        return self.gain * shrink(x, sigma)

    def variance(self, sigma):
        return 0.5 * sigma**2


class Silent(Plain):
    """The same, but it does not know its error."""

    variance = None


@struct.dataclass
class Learned:
    """A pytree that does not know its error."""

    gain: Array

    def __call__(self, x, sigma):
        return self.gain * shrink(x, sigma)


@struct.dataclass
class Knowing(Learned):
    def variance(self, sigma):
        return sigma**2 * self.gain.mean()


WHITE = 0.25 * 0.49 / (0.25 + 0.49)
CASES = {
    "function": (shrink, 1.0, WHITE),
    "lambda": (lambda x, s: shrink(x, s), 1.0, WHITE),
    "object": (Plain(2.0), 2.0, 0.245),
    "object without variance": (Silent(3.0), 3.0, WHITE),
    "method": (Plain(2.0).__call__, 2.0, WHITE),
    "pytree": (Learned(jnp.full(SHAPE, 2.0)), 2.0, WHITE),
    "denoiser": (Knowing(jnp.full(SHAPE, 2.0)), 2.0, 0.98),
}


@pytest.mark.parametrize("case", CASES)
def test_anything_that_denoises_is_a_prior_on_every_call(case):
    thing, gain, error = CASES[case]
    made, traces = prior(thing), []
    assert isinstance(made, Denoiser)

    @jax.jit
    def denoise(prior, x):
        traces.append(1)
        return prior(x, 0.7), prior.variance(0.7)

    for x in (X, X + 1, X - 1):
        denoised, variance = denoise(made, x)
        np.testing.assert_allclose(denoised, gain * shrink(x, 0.7), rtol=1e-6)
        np.testing.assert_allclose(variance, error, rtol=1e-5)
    denoise(prior(thing), X)
    assert len(traces) == 1


def test_a_prior_is_returned_as_it_is():
    gaussian = Gaussian(jnp.zeros(SHAPE), jnp.eye(16), jnp.ones(16))
    assert prior(gaussian) is gaussian
    knowing = Knowing(jnp.ones(SHAPE))
    made = prior(shrink)
    assert prior(made) is made
    assert prior(knowing) is knowing
    assert prior(knowing, lambda sigma: 3.0).variance(1.0) == 3.0


def test_one_that_knows_classes_stays_one():
    @struct.dataclass
    class Classes:
        gains: Array

        def given(self, label):
            return Learned(self.gains[0 if label is None else label])

    classes = Classes(jnp.ones(3))
    assert prior(classes) is classes and isinstance(classes, Conditional)


def test_arrays_of_a_pytree_enter_as_arguments():
    traces = []

    @jax.jit
    def denoise(prior, x):
        traces.append(1)
        return prior(x, 0.7)

    for gain in (1.0, 2.0):
        found = denoise(prior(Learned(jnp.full(SHAPE, gain))), X)
        np.testing.assert_allclose(found, gain * shrink(X, 0.7), rtol=1e-6)
    assert len(traces) == 1


def test_only_what_denoises_is_a_denoiser():
    for thing in (print, shrink, lambda x, sigma: x, Learned(jnp.ones(()))):
        assert not isinstance(thing, Denoiser)
    assert isinstance(Plain(1.0), Denoiser)


@struct.dataclass
class Named:
    name: str

    def __call__(self, x, sigma):
        return x


@struct.dataclass
class Frozen:
    table: Array = struct.field(pytree_node=False)

    def __call__(self, x, sigma):
        return x


class Unhashable(Plain):
    __hash__ = None


@pytest.mark.parametrize(
    ("thing", "error", "words"),
    [
        (Plain, TypeError, r"Plain is a class: build a prior with it, Plain\(...\)"),
        (3.0, TypeError, "a float does not denoise: a prior is called as prior"),
        (None, TypeError, "a NoneType does not denoise"),
        (Named("mine"), ValueError, r"Named\.name is a str, which jit cannot take"),
        (Frozen(jnp.ones(3)), ValueError, r"Frozen\.table is static for jit but"),
        (Unhashable(1.0), ValueError, "Unhashable is static for jit but"),
    ],
)
def test_what_is_missing_is_said(thing, error, words):
    with pytest.raises(error, match=words):
        prior(thing)
