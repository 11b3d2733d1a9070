import beds
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax import sde

BETA = (0.1, 20.0)
SCHEDULES = {
    "ve": sde.ve(0.002, 80.0),
    "vp": sde.vp(*BETA),
    "sub_vp": sde.sub_vp(*BETA),
    "edm": sde.edm(0.002, 80.0),
}


def beta(t):
    return BETA[0] + (BETA[1] - BETA[0]) * t


def integral(t):
    return BETA[0] * t + (BETA[1] - BETA[0]) * t**2 / 2


# alpha, std = alpha sigma, squared diffusion: Song et al. 2021, eq. 29 and appendix B.
FORMULAS = {
    "ve": lambda t: (1, 0.002 * 40000**t, 2 * (0.002 * 40000**t) ** 2 * np.log(40000)),
    "vp": lambda t: (
        np.exp(-integral(t) / 2),
        np.sqrt(1 - np.exp(-integral(t))),
        beta(t),
    ),
    "sub_vp": lambda t: (
        np.exp(-integral(t) / 2),
        1 - np.exp(-integral(t)),
        beta(t) * (1 - np.exp(-2 * integral(t))),
    ),
    "edm": lambda t: (1, t, 2 * t),
}


@pytest.fixture(params=SCHEDULES)
def name(request):
    return request.param


def test_time_inverts_sigma(name, x64):
    schedule, sigmas = SCHEDULES[name], sde.log_levels(50, 0.002, 80.0)
    np.testing.assert_allclose(schedule.sigma(schedule.time(sigmas)), sigmas, 1e-11)


def test_time_inverts_sigma_in_float32(name):
    schedule, sigmas = SCHEDULES[name], sde.log_levels(50, 0.002, 80.0)
    times = schedule.time(sigmas)
    assert times.dtype == jnp.float32
    # One rounding of b in e^b costs b, up to 9, roundings of sigma^2.
    np.testing.assert_allclose(schedule.sigma(times), sigmas, 1e-5)


def test_schedule_has_the_published_coefficients(name, x64):
    schedule = SCHEDULES[name]
    t = jnp.linspace(max(schedule.t_min, 1e-3), schedule.t_max, 40)
    alpha, std, squared = FORMULAS[name](np.asarray(t))
    np.testing.assert_allclose(schedule.alpha(t) * np.ones(40), alpha, 1e-12)
    np.testing.assert_allclose(schedule.alpha(t) * schedule.sigma(t), std, 1e-11)
    found = jax.vmap(lambda t: sde.squared_diffusion(schedule, t))(t)
    np.testing.assert_allclose(found, squared, 1e-10)


def test_drift_is_half_beta(name, x64):
    schedule, t, x = SCHEDULES[name], jnp.float64(0.3), jnp.arange(3.0)
    rate = -beta(0.3) / 2 if "vp" in name else 0.0
    np.testing.assert_allclose(sde.drift(schedule, x, t), rate * x, 1e-12)


def test_squared_diffusion_rebuilds_the_variance(name, x64):
    # dP/dt = 2 f P + g^2 for the variance P = (alpha sigma)^2 of x_t given x0.
    schedule, t = SCHEDULES[name], jnp.float64(0.4)
    p, rate = jax.jvp(
        lambda t: (schedule.alpha(t) * schedule.sigma(t)) ** 2, (t,), (t * 0 + 1,)
    )
    f = sde.drift(schedule, jnp.float64(1), t)
    g2 = sde.squared_diffusion(schedule, t)
    np.testing.assert_allclose(rate, 2 * f * p + g2, 1e-11)


def native_integrand(schedule, bed, guidance, sigma, x0, z):
    """1/2 g^2 |grad log p(y|x_t)|^2 dt / d ln sigma, in the schedule's own x_t."""
    t = schedule.time(sigma)
    rate = jax.grad(lambda t: jnp.log(schedule.sigma(t)))(t)
    alpha = schedule.alpha(t)
    x_t = alpha * (x0 + schedule.sigma(t) * z)
    _, score = guidance.score(bed.prior, bed.scan, x_t / alpha, schedule.sigma(t))
    gradient = score / alpha
    return sde.squared_diffusion(schedule, t) * jnp.sum(gradient**2) / (2 * rate)


def test_every_schedule_has_the_same_integrand(x64):
    bed = beds.g16()
    exact = bed.exact()
    x0 = bed.posterior.sample(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), bed.shape)
    sigmas = sde.log_levels(8, 0.002, 80.0)
    curves = [
        jax.jit(jax.vmap(lambda s, c=c: native_integrand(c, bed, exact, s, x0, z)))(
            sigmas
        )
        for c in SCHEDULES.values()
    ]
    for curve in curves[:-1]:
        np.testing.assert_allclose(curve, curves[-1], 1e-10)


def test_log_levels_are_geometric():
    levels = np.asarray(sde.log_levels(9, 0.01, 50.0))
    np.testing.assert_allclose(levels, np.geomspace(0.01, 50, 9), 1e-5)


def test_karras_levels_end_at_zero(x64):
    levels = np.asarray(sde.karras_levels(18, 0.002, 80.0))
    i = np.arange(18)
    ends = 80 ** (1 / 7), 0.002 ** (1 / 7)
    expected = (ends[0] + i / 17 * (ends[1] - ends[0])) ** 7
    np.testing.assert_allclose(levels[:-1], expected, 1e-12)
    assert levels[-1] == 0


@pytest.mark.parametrize(
    "build",
    [
        lambda: sde.ve(1.0, 0.5),
        lambda: sde.ve(0.0, 1.0),
        lambda: sde.vp(2.0, 1.0),
        lambda: sde.sub_vp(-1.0, 1.0),
        lambda: sde.edm(1.0, 1.0),
        lambda: sde.log_levels(1, 0.1, 1.0),
        lambda: sde.log_levels(4, 0.0, 1.0),
        lambda: sde.karras_levels(1, 0.1, 1.0),
    ],
)
def test_wrong_settings_are_refused(build):
    with pytest.raises(ValueError, match="need"):
        build()
