"""Problems whose posterior and KL are known exactly, and two oracles for them.

A bed is a prior, a matrix A, y = A x + n with n ~ N(0, s^2 I), and images of shape
(d, 1, 1). For a Gaussian prior every score in the library but the mixture's is affine
in u, so that both oracles are linear algebra, without sampling:

    integrand:  sigma^2 E g^2 = sigma^2 [ g(m_y)^2 + diag(G (P + sigma^2) G^T) ],
                G = dg/du,   u ~ N(m_y, P + sigma^2);
    propagate:  the mean and covariance of a sampler's output, and its path KL.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax.guidance.exact import Exact
from klip_jax.operators.base import Operator
from klip_jax.priors.analytic import Gaussian, Mixture
from klip_jax.types import Scan

G16, M16, INFORMATION = 11.281689, 4.702141, 13.808763  # KL, KL, I(x;y) of G16
TRUNCATED = 11.2453  # KL of G16 between sigma = .01 and 50
# sigma: coherent and fluctuating part of I(sigma), KL of the noised laws.
G16_TABLE = {
    0.01: (0.000979, 0.068906, 11.246371),
    0.05: (0.019029, 1.133563, 10.569561),
    0.1: (0.047963, 2.209361, 9.390065),
    0.2: (0.102450, 3.161129, 7.465280),
    0.5: (0.223096, 3.337167, 4.191397),
    1.0: (0.320711, 2.257940, 2.020005),
    2.0: (0.355258, 0.893304, 0.697959),
    5.0: (0.153323, 0.081012, 0.111856),
    20.0: (0.012632, 0.000459, 0.006497),
}
# sigma: I(sigma) and its standard error, themselves from 2e5 draws.
M16_TABLE = {
    0.05: (0.15078, 0.00014),
    0.1: (0.35085, 0.00038),
    0.2: (0.70973, 0.0011),
    0.5: (1.52255, 0.0029),
    1.0: (1.76602, 0.0036),
    2.0: (1.27352, 0.0029),
    5.0: (0.29105, 0.0006),
}


class Dense(Operator):
    """y = matrix x, for small problems."""

    def __init__(self, matrix, in_shape):
        self.matrix = jnp.asarray(matrix)
        self.in_shape, self.out_shape = tuple(in_shape), (len(matrix),)

    def __call__(self, x):
        return self.matrix @ x.ravel()

    def solve_gram(self, r, variance, noise_var):
        gram = variance * self.matrix @ self.matrix.T
        return jnp.linalg.solve(gram + noise_var * jnp.eye(len(r)), r)


class Bed(NamedTuple):
    """A prior and what was measured: matrix [m, d], y [m], noise_std > 0."""

    prior: Gaussian | Mixture
    matrix: jax.Array
    y: jax.Array
    noise_std: float

    @property
    def shape(self):
        return (self.matrix.shape[1], 1, 1)

    @property
    def posterior(self):
        return self.prior.posterior(self.matrix, self.y, self.noise_std)

    @property
    def scan(self):
        return Scan(Dense(self.matrix, self.shape), self.y, self.noise_std)

    def exact(self):
        return Exact(self.posterior)


def g16(noise_std=0.1):
    """G16: a smooth Gaussian prior on 16 pixels, every second one measured."""
    i, a = np.arange(16), np.eye(16)[::2]
    mean = np.sin(i / 2)
    y = a @ (mean + 0.8 * np.cos(i / 3)) + 0.1 * _wiggle()
    return Bed(_component(mean, 3, 1), *map(jnp.asarray, (a, y)), noise_std)


def m16():
    """M16: three Gaussians of different mean, amplitude and smoothness."""
    i, a = np.arange(16), np.eye(16)[::2]
    wave = 1.5 * np.cos(i / 4)
    components = [
        _component(np.sin(i / 2), 3, 1),
        _component(np.full(16, -1.5), 1, 0.25),
        _component(wave, 6, 0.5),
    ]
    y = a @ (np.sin(i / 2) + wave) / 2 + 0.3 * _wiggle()
    prior = Mixture.of([0.5, 0.3, 0.2], components)
    return Bed(prior, *map(jnp.asarray, (a, y)), 0.3)


def white(d=8, m=5, variance=0.5, noise_std=0.2):
    """A white Gaussian prior seen through a random matrix."""
    rng = np.random.default_rng(0)
    mean, a = rng.normal(size=(d, 1, 1)), rng.normal(size=(m, d)) / np.sqrt(d)
    y = rng.normal(size=m)
    mean, basis, spectrum, a, y = map(
        jnp.asarray, (mean, np.eye(d), np.full(d, variance), a, y)
    )
    return Bed(Gaussian(mean, basis, spectrum), a, y, noise_std)


def random(d, seed):
    """A random Gaussian problem with d pixels and d // 2 measurements."""
    rng = np.random.default_rng(seed)
    b, mean = rng.standard_normal((d, d)), rng.standard_normal(d)
    a = rng.standard_normal((d // 2, d)) / np.sqrt(d)
    z, n = rng.standard_normal(d), rng.standard_normal(d // 2)
    covariance = b @ b.T / d + 0.1 * np.eye(d)
    y = a @ (mean + np.linalg.cholesky(covariance) @ z) + 0.2 * n
    prior = Gaussian.from_covariance(
        jnp.asarray(mean.reshape(d, 1, 1)), jnp.asarray(covariance)
    )
    return Bed(prior, jnp.asarray(a), jnp.asarray(y), 0.2)


def integrand(bed, guidance, sigma):
    """Return the coherent and the fluctuating part of I(sigma), each [d], nats."""
    posterior, d = bed.posterior, bed.matrix.shape[1]

    def scaled(u):
        return sigma * guidance.score(bed.prior, bed.scan, u, sigma)[1].ravel()

    jacobian = jax.jacfwd(scaled)(posterior.mean).reshape(d, d)
    noised = posterior.noised(sigma)
    spread = (jacobian @ noised.basis) ** 2 @ noised.spectrum
    return scaled(posterior.mean) ** 2, spread


def propagate(sampler, bed, guidance, sigmas, count=None):
    """Return the law of a sampler's output and the expected path KL [d], exactly.

    The sampler must add sqrt(noise_var) * normal(key) in each step, and the chain
    starts from N(0, sigmas[0]^2 I). It takes the first `count` steps, all by default:
    chains of any length share a program.
    """
    key, d = jax.random.key(0), bed.matrix.shape[1]
    given = bed.prior, guidance, bed.scan

    def step(i, carry):
        (law, kl), levels = carry, (sigmas[i], sigmas[i + 1])

        def mean(x):
            x = x.reshape(bed.shape)
            new, info = sampler.step(key, x, *given, *levels)
            noise = jnp.sqrt(info.noise_var) * jax.random.normal(key, x.shape, x.dtype)
            return (new - noise).ravel(), info.shift.ravel(), info.noise_var

        centre, shift, noise_var = mean(law[0])
        push, push_shift, _ = jax.jacfwd(mean)(law[0])
        energy = shift**2 + jnp.sum((push_shift @ law[1]) * push_shift, -1)
        noisy = noise_var > 0
        kl += jnp.where(noisy, energy / (2 * jnp.where(noisy, noise_var, 1)), 0)
        covariance = push @ law[1] @ push.T + noise_var * jnp.eye(d)
        return (centre, covariance), kl

    start = (jnp.zeros(d), sigmas[0] ** 2 * jnp.eye(d)), jnp.zeros(d)
    count = len(sigmas) - 1 if count is None else count
    (mean, covariance), kl = jax.lax.fori_loop(0, count, step, start)
    return Gaussian.from_covariance(mean.reshape(bed.shape), covariance), kl


def _wiggle():
    return np.sqrt(2) * np.sin(1.7 * np.arange(8) + 0.3)


def _component(mean, length, variance):
    i = np.arange(16)
    smooth = np.exp(-((i[:, None] - i) ** 2) / (2 * length**2))
    covariance = variance * smooth + 0.01 * np.eye(16)
    return Gaussian.from_covariance(
        jnp.asarray(mean.reshape(16, 1, 1)), jnp.asarray(covariance)
    )
