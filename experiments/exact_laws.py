"""The exact law of what a sampler draws on a Gaussian problem, and its errors.

With a Gaussian prior and a linear score every step is affine in the state and in the
noise it draws, so means, covariances and expected energies are linear algebra:

    x' = c + J (x - m) + N z,   m' = c,   C' = J C J^T + N N^T.
"""

import math
from typing import NamedTuple
from unittest import mock

import beds
import jax
import jax.numpy as jnp

from klip_jax import kl, sde
from klip_jax.priors.analytic import gaussian_kl

LOW, HIGH = 0.002, 80.0  # noise levels of chains and estimators
CHILDREN, SLOTS = 8, 73  # of a stand-in key; enough for keys split twice


class Law(NamedTuple):
    """The exact law of a chain's output, and its expected path KL per pixel [d]."""

    mean: jax.Array
    covariance: jax.Array
    path_kl: jax.Array


def law(sampler, bed, guidance, sigmas, scan=None, count=None):
    """Propagate mean and covariance through steps affine in state and noise.

    Unlike `beds.propagate` it lets a step use any number of draws, in any way: keys are
    stand-ins for rows of a table of noise, and the step is differentiated by the table.
    `scan` may tell the sampler another operator or noise than the bed's. Only the first
    `count` steps are taken if it is given: chains of any length share a program.
    """
    d, measured = bed.matrix.shape[1], (guidance, scan or bed.scan)

    def step(i, carry):
        levels = sigmas[i], sigmas[i + 1]

        def move(x, table):
            def normal(key, shape, dtype):
                row = table.at[slot(key)].get(mode="fill", fill_value=jnp.nan)
                return row[: math.prod(shape)].reshape(shape).astype(dtype)

            def split(key, num=2):
                return jax.vmap(stand_in)(slot(key) * CHILDREN + 1 + jnp.arange(num))

            with mock.patch.multiple(jax.random, normal=normal, split=split):
                new, info = sampler.step(
                    stand_in(0), x.reshape(bed.shape), bed.prior, *measured, *levels
                )
            return jnp.stack([new.ravel(), info.shift.ravel()]), info.noise_var

        table = jnp.zeros((SLOTS, d))
        (centre, shift), pull, noise_var = jax.vjp(
            move, carry.mean, table, has_aux=True
        )
        rows = jnp.eye(2 * d).reshape(2 * d, 2, d)
        push, noise = (jac.reshape(2, d, -1) for jac in jax.vmap(pull)(rows))
        energy = shift**2 + jnp.sum((push[1] @ carry.covariance) * push[1], -1)
        noisy = noise_var > 0
        nats = jnp.where(noisy, energy / (2 * jnp.where(noisy, noise_var, 1)), 0)
        covariance = push[0] @ carry.covariance @ push[0].T + noise[0] @ noise[0].T
        return Law(centre, covariance, carry.path_kl + nats)

    start = Law(jnp.zeros(d), sigmas[0] ** 2 * jnp.eye(d), jnp.zeros(d))
    count = len(sigmas) - 1 if count is None else count
    return jax.lax.fori_loop(0, count, step, start)


def stand_in(row):
    """Return a key that is nothing but the number of a row of the table."""
    return jax.random.wrap_key_data(jnp.stack([0, row]).astype(jnp.uint32))


def slot(key):
    """Return the row that a stand-in is for."""
    return jax.random.key_data(key)[..., 1].astype(jnp.int32)


class Spectral(beds.Dense):
    """`beds.Dense` with eigenvectors for A A^T: programs compile twice as fast."""

    def __init__(self, matrix, in_shape):
        super().__init__(matrix, in_shape)
        self.power, self.basis = jnp.linalg.eigh(self.matrix @ self.matrix.T)

    def solve_gram(self, r, variance, noise_var):
        return self.basis @ (self.basis.T @ r / (variance * self.power + noise_var))


@jax.jit
def evaluate(sampler, guidance, scan, bed, posterior, sigmas):
    """Return the errors of one combination on one bed, relative to the truth."""
    mean, covariance = posterior.mean.ravel(), posterior.covariance
    found = law(sampler, bed, guidance, sigmas, scan)
    true = gaussian_kl(posterior, bed.prior)
    grid = sde.log_levels(32, LOW, HIGH)

    def integrand(sigma):
        # The expected integrand of `levels_kl` at exact draws, and at the chain's own.
        def score(u):
            u = u.reshape(bed.shape)
            return sigma * guidance.score(bed.prior, scan, u, sigma)[1].ravel()

        centre, jacobian = score(mean), jax.jacfwd(score)(mean)
        own = centre + jacobian @ (found.mean - mean)

        def energy(centre, covariance):
            noised = covariance + sigma**2 * jnp.eye(len(mean))
            return centre @ centre + jnp.sum((jacobian @ noised) * jacobian)

        return jnp.array([energy(centre, covariance), energy(own, found.covariance)])

    levels_kl = kl.trapezoid(grid) @ jax.vmap(integrand)(grid)
    return dict(
        mean=jnp.linalg.norm(found.mean - mean) / jnp.sqrt(jnp.trace(covariance)),
        covariance=jnp.linalg.norm(found.covariance - covariance)
        / jnp.linalg.norm(covariance),
        path_kl=found.path_kl.sum() / true,
        levels_kl=levels_kl[0] / true,
        own_levels_kl=levels_kl[1] / true,
    )
