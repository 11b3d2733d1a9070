import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.detectors.noised_reconstruction import DDPMOOD, AnoDDPM, errors
from klip_jax.priors.analytic import Gaussian
from klip_jax.types import Given

SHAPE = (4, 3, 2)


def test_expected_error_of_one_step_on_a_gaussian_prior():
    # x^ = D(x + s z, s), so x - x^ has the mean (1 - w)(x - mu), w = S / (S + s^2), and
    # the covariance s^2 w w^T.
    d, draws = 24, 4000
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(d, d)))
    spectrum = np.geomspace(0.003, 0.3, d)
    prior = Gaussian(jnp.full(SHAPE, 0.5), jnp.float32(basis), jnp.float32(spectrum))
    x = prior.sample(jax.random.key(1))
    levels = np.float32([0.05, 0.5])
    run = jax.jit(errors, static_argnames=("steps", "draws"))
    found = run(jax.random.key(0), x, prior, jnp.asarray(levels), steps=1, draws=draws)
    assert found.shape == (2, *SHAPE[:2])
    for s, error in zip(levels, found, strict=True):
        w = basis * (spectrum / (spectrum + s**2)) @ basis.T
        mean = (np.eye(d) - w) @ np.asarray(x - 0.5).ravel()
        covariance = s**2 * w @ w.T
        expected = (mean**2 + np.diag(covariance)).reshape(SHAPE).sum(-1)
        # Var |e|^2 = 2 tr C^2 + 4 m^T C m over the channels of a pixel.
        blocks = covariance.reshape(12, 2, 12, 2)[np.arange(12), :, np.arange(12)]
        means = mean.reshape(12, 2)
        variance = 2 * (blocks**2).sum((1, 2))
        variance += 4 * np.einsum("pi,pij,pj->p", means, blocks, means)
        stderr = np.sqrt(variance / draws).reshape(SHAPE[:2])
        assert np.all(np.abs(error - expected) < 4.5 * stderr)


def test_network_calls_and_errors():
    assert DDPMOOD(levels=(0.1,) * 7, steps=10, draws=2).network_calls == 140
    assert AnoDDPM(steps=7).network_calls == 7
    for wrong in (dict(draws=0), dict(steps=0), dict(sigma=0.0), dict(top_share=1.5)):
        name, value = next(iter(wrong.items()))
        with pytest.raises(ValueError, match=f"{name}={value}: must be"):
            AnoDDPM(**wrong)
    with pytest.raises(ValueError, match=r"levels=\(0.1, nan\): must be positive"):
        DDPMOOD(levels=(0.1, float("nan")))


def test_a_level_recompiles_nothing():
    prior = Gaussian(jnp.full(SHAPE, 0.5), jnp.eye(24), jnp.full(24, 0.04))
    given, traces = Given(prior, image=jnp.zeros(SHAPE)), []

    @jax.jit
    def detect(detector):
        traces.append(1)
        return detector(jax.random.key(0), given).score

    found = [
        detect(AnoDDPM(sigma=sigma, steps=2, block=1, pool_width=width))
        for sigma in (0.1, 0.2)
        for width in (0.0, 1.0)
    ]
    assert len(traces) == 1 and len(set(map(float, found))) == 4
