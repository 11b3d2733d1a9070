"""What one step of the samplers with several moves does, by dense formulas."""

import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.guidance.none import NoGuidance
from klip_jax.operators.mask import Half
from klip_jax.operators.mri import Cartesian
from klip_jax.priors.function import prior
from klip_jax.samplers.ancestral import Ancestral
from klip_jax.samplers.langevin import Langevin
from klip_jax.samplers.null_space import NullSpace
from klip_jax.samplers.predictor_corrector import PredictorCorrector
from klip_jax.samplers.projection import Projection
from klip_jax.samplers.proximal import Proximal
from klip_jax.scan import residual
from klip_jax.types import Scan

pytestmark = pytest.mark.usefixtures("x64")
KEY, SIGMA, NEXT = jax.random.key(0), np.float64(0.6), np.float64(0.4)


def step(sampler, *given, key=KEY):
    return jax.jit(type(sampler).step)(sampler, key, *given)


def test_predictor_corrector_is_langevin_and_then_ancestral():
    bed = beds.g16()
    x, given = bed.prior.mean + 1, (bed.prior, bed.exact(), bed.scan)
    both = PredictorCorrector(0.3, steps=2)
    found, info = step(both, x, *given, SIGMA, NEXT)
    first, second = jax.random.split(KEY)
    x, one = step(Langevin(0.3, steps=2), x, *given, SIGMA, SIGMA, key=first)
    x, two = step(Ancestral(), x, *given, SIGMA, NEXT, key=second)
    np.testing.assert_allclose(found, x, atol=1e-12)
    np.testing.assert_allclose(info.shift, one.shift + two.shift, atol=1e-12)
    assert info.noise_var == 0


def test_the_last_langevin_step_returns_the_posterior_mean():
    bed = beds.g16()
    x, given = bed.prior.mean + 1, (bed.prior, bed.exact(), bed.scan)
    found, info = step(Langevin(), x, *given, SIGMA, jnp.float64(0))
    np.testing.assert_allclose(found, bed.posterior(x, SIGMA), atol=1e-10)
    assert info.noise_var == 0


def test_null_space_gives_each_direction_the_noise_of_its_level():
    # Own noise and that of y, which enters through dx'/dy: w^2 I for any operator.
    bed = beds.white()
    d = 8

    def of(x, y, key=KEY):
        given = bed.prior, NoGuidance(), bed.scan._replace(y=y)
        return NullSpace().step(key, x, *given, SIGMA, NEXT)[0].ravel()

    n, x = 20_000, bed.prior.mean
    draws = jax.jit(jax.vmap(lambda key: of(x, bed.y, key)))(jax.random.split(KEY, n))
    by_y = jax.jit(jax.jacfwd(of, 1))(x, bed.y)
    found = np.cov(draws.T) + bed.noise_std**2 * by_y @ by_y.T
    w2 = float(NEXT**2 / SIGMA**2 * (SIGMA**2 - NEXT**2))
    np.testing.assert_allclose(found, w2 * np.eye(d), atol=4.5 * w2 * (2 / n) ** 0.5)


def test_null_space_without_noise_takes_what_is_seen_from_y():
    # A x' = k A x + c y in the mean, and the prior's own step in the null space.
    bed = beds.white()._replace(noise_std=1e-5)
    x = bed.prior.mean + 1

    def mean(x, y):
        given = bed.prior, NoGuidance(), bed.scan._replace(y=y)
        x, info = NullSpace().step(KEY, x, *given, SIGMA, NEXT)
        return x.ravel(), info.shift.ravel()

    keep = (NEXT / SIGMA) ** 2
    (by_x, _), (by_y, shift_by_y) = jax.jit(
        lambda x, y: (jax.jacfwd(mean)(x, y), jax.jacfwd(mean, 1)(x, y))
    )(x, bed.y)
    a = bed.matrix
    np.testing.assert_allclose(a @ by_y, (1 - keep) * np.eye(5), atol=1e-5)
    np.testing.assert_allclose(by_y, shift_by_y, atol=1e-9)
    np.testing.assert_allclose(a @ by_x.reshape(8, 8), keep * a, atol=1e-5)
    null = np.eye(8) - np.linalg.pinv(a) @ a
    np.testing.assert_allclose(null @ by_y, 0, atol=1e-5)


def test_proximal_estimate_minimises_both_misfits():
    bed, weight = beds.g16(), 2.0
    x = bed.prior.mean + 1
    given = bed.prior, NoGuidance(), bed.scan
    found, info = step(Proximal(weight), x, *given, SIGMA, 0.0)

    @jax.jit
    def misfit(x):
        fit = jnp.sum(residual(bed.scan, x) ** 2) / bed.noise_std**2
        return fit + weight * jnp.sum((x - info.x0) ** 2) / SIGMA**2

    assert jnp.abs(jax.grad(misfit)(found)).max() < 1e-8 * misfit(x)
    # All of the noise anew: around the same estimate, with variance s'^2.
    z = jax.random.normal(KEY, x.shape)
    renewed, info = step(Proximal(weight, 1.0), x, *given, SIGMA, NEXT)
    np.testing.assert_allclose(renewed, found + NEXT * z, atol=1e-9)
    np.testing.assert_allclose(info.noise_var, NEXT**2)


@pytest.mark.parametrize("operator", [Half((4, 6, 2)), Cartesian((4, 8, 2))])
@pytest.mark.parametrize("coefficient", [1.0, 0.84])
def test_projection_blends_what_is_seen_and_keeps_the_rest(operator, coefficient):
    # Rows of an orthonormal transform; a denoiser that changes nothing shows p.
    key_x, key_y = jax.random.split(jax.random.key(1))
    x = jax.random.normal(key_x, operator.in_shape)
    y = jax.random.normal(key_y, operator.out_shape)
    given = prior(lambda x, sigma: x), NoGuidance(), Scan(operator, y, 1e-6)
    found, info = step(Projection(coefficient), x, *given, SIGMA, 0.0)
    z = jax.random.normal(jax.random.split(KEY)[0], x.shape)
    noised = y + SIGMA * operator(z)
    blend = (1 - coefficient) * operator(x) + coefficient * noised
    np.testing.assert_allclose(operator(found), blend, atol=1e-9)

    @jax.jit
    def unseen(x):
        return x - operator.adjoint(operator(x))

    np.testing.assert_allclose(unseen(found), unseen(x), atol=1e-9)
    expected = coefficient * operator.adjoint(y - operator(x))
    np.testing.assert_allclose(info.shift, expected, atol=1e-9)


def test_projection_does_not_fit_noise():
    # Far below the noise of y nothing moves.
    bed = beds.g16()
    given = bed.prior, NoGuidance(), bed.scan
    _, info = step(Projection(), bed.prior.mean + 1, *given, 1e-4, 0.5e-4)
    assert jnp.abs(info.shift).max() < 1e-5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Langevin(0.0), "size=0.0"),
        (lambda: Langevin(1.5), "size=1.5"),
        (lambda: Langevin(steps=0), "steps=0"),
        (lambda: PredictorCorrector(-0.1), "size=-0.1"),
        (lambda: PredictorCorrector(steps=1.5), "steps=1.5"),
        (lambda: NullSpace(0.0), "eta=0.0"),
        (lambda: NullSpace(1.1), "eta=1.1"),
        (lambda: Proximal(0.0), "weight=0.0"),
        (lambda: Proximal(zeta=1.2), "zeta=1.2"),
        (lambda: Projection(0.0), "coefficient=0.0"),
        (lambda: Projection(1.2), "coefficient=1.2"),
        (lambda: Projection(eta=-1.0), "eta=-1.0"),
    ],
)
def test_wrong_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
