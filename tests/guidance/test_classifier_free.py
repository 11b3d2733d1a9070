"""Classifier-free guidance: its two limits, its mask, and samplers that take it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import struct
from klip_jax.guidance.classifier_free import ClassifierFree, Label
from klip_jax.guidance.guided import Guided
from klip_jax.guidance.none import NoGuidance
from klip_jax.priors.analytic import Gaussian
from klip_jax.priors.clipped import Clipped, before_and_after
from klip_jax.sample import sample
from klip_jax.samplers.ddim import DDIM
from klip_jax.samplers.heun import Heun

SHAPE = (4, 4, 1)
SIGMAS = jnp.float32([2.0, 1.0, 0.5, 0.2, 0.0])
X = 0.5 + jax.random.normal(jax.random.key(0), SHAPE)


def white(mean):
    return Gaussian(jnp.full(SHAPE, mean), jnp.eye(16), jnp.full(16, 0.09))


@struct.dataclass
class TwoClasses:
    """White Gaussians around 0.2, 0.8 and, of no class, 0.5."""

    means: Any

    def given(self, label):
        label = 2 if label is None else label
        return white(0.0).replace(mean=jnp.broadcast_to(self.means[label], SHAPE))

    def __call__(self, x, sigma):
        return self.given(None)(x, sigma)

    def variance(self, sigma):
        return self.given(None).variance(sigma)


PRIOR = TwoClasses(jnp.float32([0.2, 0.8, 0.5]))
GUIDANCE = ClassifierFree(weight=3.0)


def chain(sampler, guidance, scan, prior=PRIOR):
    run = jax.jit(
        lambda scan: sample(
            jax.random.key(1), sampler, prior, SIGMAS, SHAPE, guidance=guidance,
            scan=scan, start=X,
        ).x
    )  # fmt: skip
    return run(scan)


def test_the_guided_denoiser_is_on_the_line_through_both():
    guided = Guided(PRIOR, GUIDANCE, Label(1))
    null, one = PRIOR.given(None)(X, 0.5), PRIOR.given(1)(X, 0.5)
    np.testing.assert_allclose(guided(X, 0.5), null + 3 * (one - null), atol=1e-6)
    plain = Guided(PRIOR, ClassifierFree(weight=1.0), Label(1))
    np.testing.assert_allclose(plain(X, 0.5), one, atol=1e-6)


@pytest.mark.parametrize("sampler", [DDIM(), Heun()], ids=["ddim", "heun"])
def test_an_empty_mask_is_no_guidance_and_a_full_one_is_no_mask(sampler):
    empty, full = (jnp.full(SHAPE[:2], value) for value in (False, True))
    plain = chain(sampler, GUIDANCE, Label(0))
    none = chain(sampler, NoGuidance(), None)
    np.testing.assert_array_equal(chain(sampler, GUIDANCE, Label(0, empty)), none)
    np.testing.assert_allclose(
        chain(sampler, GUIDANCE, Label(0, full)), plain, atol=1e-6
    )
    half = full.at[:2].set(False)
    mixed = chain(sampler, GUIDANCE, Label(0, half))
    np.testing.assert_allclose(
        mixed, jnp.where(half[..., None], plain, none), atol=1e-6
    )
    assert float(jnp.abs(plain - none).min()) > 0.05


def test_labels_are_vmapped():
    labels = jnp.arange(2)
    both = jax.vmap(lambda label: Guided(PRIOR, GUIDANCE, Label(label))(X, 0.5))
    for label in (0, 1):
        expected = Guided(PRIOR, GUIDANCE, Label(label))(X, 0.5)
        np.testing.assert_allclose(both(labels)[label], expected, atol=1e-6)


def test_a_clipped_prior_keeps_its_classes():
    clipped = Clipped(PRIOR)
    x0, _ = GUIDANCE.score(clipped, Label(1), 9 * X, 0.5)
    assert 0 <= float(x0.min()) and float(x0.max()) <= 1
    own, cut = before_and_after(clipped, 9 * X, 0.5)
    np.testing.assert_allclose(own, PRIOR(9 * X, 0.5))
    np.testing.assert_allclose(cut, x0)
    assert clipped.variance(0.5) == PRIOR.variance(0.5)


def test_what_cannot_be_guided_is_said():
    with pytest.raises(ValueError, match="Gaussian knows no classes"):
        GUIDANCE.score(white(0.5), Label(0), X, 0.5)
    with pytest.raises(ValueError, match="Gaussian knows no classes"):
        GUIDANCE.score(Clipped(white(0.5)), Label(0), X, 0.5)
    with pytest.raises(ValueError, match=r"cut=1.5: must be in \(-1, 1\)"):
        ClassifierFree(cut=1.5)


def test_it_aims_everywhere_without_a_cut():
    target = GUIDANCE.aim(jax.random.key(0), None, 1, X, SHAPE[:2])
    assert target == Label(1) and GUIDANCE.classifier_calls == 0
