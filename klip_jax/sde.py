"""Noise schedules and grids of noise levels.

Every schedule is a forward SDE dx = f(t) x dt + g(t) dw with x_t = alpha(t) (x0 +
sigma(t) z). It is stored as alpha, sigma and the inverse of sigma; the drift f = d ln
alpha / dt and the squared diffusion g^2 = alpha^2 d(sigma^2)/dt follow by `jax.jvp`.
Samplers and estimators see noise levels sigma only, so VE, VP, sub-VP and EDM differ
just in which levels they visit.

Reference: docs/theory.md, section 1; Song et al. 2021, eq. 9-13 and appendix B; Karras
et al. 2022, table 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax.types import Scalar


class Schedule(NamedTuple):
    """alpha(t), sigma(t) = std(t) / alpha(t), its inverse, and the range of t.

    Attributes:
      alpha: t -> scale of the image, 1 for VE and EDM.
      sigma: t -> noise level relative to the image, increasing.
      time: sigma -> t.
      t_min, t_max: the range of t.
    """

    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    time: Callable[[Array], Array]
    t_min: float
    t_max: float


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Schedule:
    """Variance exploding: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t.

    Raises:
      ValueError: unless 0 < sigma_min < sigma_max.
    """
    _check_range(sigma_min, sigma_max)
    log_ratio = math.log(sigma_max / sigma_min)
    return Schedule(
        jnp.ones_like,
        lambda t: sigma_min * jnp.exp(log_ratio * t),
        lambda sigma: jnp.log(sigma / sigma_min) / log_ratio,
        0.0,
        1.0,
    )


def vp(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-5) -> Schedule:
    """Variance preserving: b = integral of beta, alpha = e^(-b/2), sigma^2 = e^b - 1.

    Raises:
      ValueError: unless 0 < beta_min < beta_max.
    """
    _check_range(beta_min, beta_max)
    integral, time = _linear_beta(beta_min, beta_max)
    return Schedule(
        lambda t: jnp.exp(-integral(t) / 2),
        lambda t: jnp.sqrt(jnp.expm1(integral(t))),
        lambda sigma: time(jnp.log1p(sigma**2)),
        t_min,
        1.0,
    )


def sub_vp(
    beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3
) -> Schedule:
    """Sub-VP: alpha as VP, std = 1 - e^(-b), so sigma = 2 sinh(b / 2).

    Raises:
      ValueError: unless 0 < beta_min < beta_max.
    """
    _check_range(beta_min, beta_max)
    integral, time = _linear_beta(beta_min, beta_max)
    return Schedule(
        lambda t: jnp.exp(-integral(t) / 2),
        lambda t: 2 * jnp.sinh(integral(t) / 2),
        lambda sigma: time(2 * jnp.arcsinh(sigma / 2)),
        t_min,
        1.0,
    )


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> Schedule:
    """EDM: alpha = 1, sigma = t.

    Raises:
      ValueError: unless 0 < sigma_min < sigma_max.
    """
    _check_range(sigma_min, sigma_max)
    return Schedule(jnp.ones_like, lambda t: t, lambda s: s, sigma_min, sigma_max)


def drift(schedule: Schedule, x: Array, t: Array) -> Array:
    """Return f(t) x = x d ln alpha / dt."""
    _, rate = jax.jvp(lambda t: jnp.log(schedule.alpha(t)), (t,), (jnp.ones_like(t),))
    return rate * x


def squared_diffusion(schedule: Schedule, t: Array) -> Array:
    """Return g(t)^2 = alpha^2 d(sigma^2)/dt."""
    _, rate = jax.jvp(lambda t: schedule.sigma(t) ** 2, (t,), (jnp.ones_like(t),))
    return schedule.alpha(t) ** 2 * rate


def log_levels(n: int, sigma_min: Scalar, sigma_max: Scalar) -> Float[Array, " n"]:
    """Return n noise levels [n], increasing, evenly spaced in log sigma.

    The ends may be traced; then they are not checked.

    Raises:
      ValueError: unless 0 < sigma_min < sigma_max and n >= 2.
    """
    _check_range(sigma_min, sigma_max, n)
    return jnp.exp(jnp.linspace(jnp.log(sigma_min), jnp.log(sigma_max), n))


def karras_levels(
    n: int, sigma_min: Scalar, sigma_max: Scalar, rho: float = 7.0
) -> Float[Array, " m"]:
    """Return n + 1 noise levels for a sampler, decreasing, the last one 0.

    The ends may be traced; then they are not checked.

    Raises:
      ValueError: unless 0 < sigma_min < sigma_max and n >= 2.

    Reference: Karras et al. 2022, eq. 5.
    """
    _check_range(sigma_min, sigma_max, n)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return jnp.append(jnp.linspace(high, low, n) ** rho, 0.0)


def _linear_beta(beta_min, beta_max):
    slope = beta_max - beta_min

    def integral(t):
        return beta_min * t + slope * t**2 / 2

    def time(b):
        return 2 * b / (beta_min + jnp.sqrt(beta_min**2 + 2 * slope * b))

    return integral, time


def _check_range(low: Scalar, high: Scalar, n: int = 2) -> None:
    known = all(isinstance(end, int | float) for end in (low, high))
    if known and not 0 < low < high:
        raise ValueError(f"need 0 < lowest < highest, got {low} and {high}")
    if n < 2:
        raise ValueError(f"need at least 2 noise levels, got {n}")
