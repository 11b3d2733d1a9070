"""Analytic priors, for which every quantity of KLIP has a closed form.

Gaussian N(mu, Sigma) with Sigma = U diag(lambda) U^T:

    D(x, sigma) = mu + U diag(lambda / (lambda + sigma^2)) U^T (x - mu).

Mixture sum_k w_k N(mu_k, Sigma_k):

    D(x, sigma) = sum_k rho_k(x) D_k(x, sigma),
    rho_k ~ w_k N(x; mu_k, Sigma_k + sigma^2 I).

Given y = A x + n, n ~ N(0, s^2 I), the posterior is of the same family, and
KL(p(x|y) || p(x)) is exact for both: these are the oracles of the estimators.

Reference: docs/theory.md, section 3.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.types import PRNGKey, Scalar


@struct.dataclass
class Gaussian:
    """N(mean, basis diag(spectrum) basis^T) over images of any shape.

    Attributes:
      mean: [H, W, C] (or any shape of d entries).
      basis: eigenvectors in columns [d, d].
      spectrum: eigenvalues [d], > 0.
    """

    mean: Array
    basis: Array
    spectrum: Array

    @classmethod
    def from_covariance(
        cls, mean: Float[Array, "..."], covariance: Float[Array, "d d"]
    ) -> "Gaussian":
        """Diagonalise `covariance` [d, d]."""
        spectrum, basis = jnp.linalg.eigh(covariance)
        return cls(mean, basis, jnp.maximum(spectrum, 0))

    @property
    def covariance(self) -> Float[Array, "d d"]:
        """Sigma [d, d]."""
        return (self.basis * self.spectrum) @ self.basis.T

    def __call__(
        self, x: Float[Array, "*shape"], sigma: Scalar
    ) -> Float[Array, "*shape"]:
        """Return E[x0 | x_sigma = x]; see `types.Denoiser`."""
        shrink = self.spectrum / (self.spectrum + sigma**2)
        centred = self.basis.T @ (x - self.mean).ravel()
        return self.mean + (self.basis @ (shrink * centred)).reshape(x.shape)

    def variance(self, sigma: Scalar) -> Float[Array, ""]:
        """Return tr Cov(x0 | x_sigma) / d, squared image units."""
        return jnp.mean(self.spectrum * sigma**2 / (self.spectrum + sigma**2))

    def sample(self, key: PRNGKey) -> Float[Array, "..."]:
        """Draw one image of the shape of `mean`."""
        z = jax.random.normal(key, self.spectrum.shape, self.spectrum.dtype)
        coloured = self.basis @ (jnp.sqrt(self.spectrum) * z)
        return self.mean + coloured.reshape(self.mean.shape)

    def log_prob(self, x: Float[Array, "..."], sigma: Scalar = 0.0) -> Float[Array, ""]:
        """Return log N(x; mean, Sigma + sigma^2 I), nats."""
        total = self.spectrum + sigma**2
        z = self.basis.T @ (x - self.mean).ravel()
        return -0.5 * jnp.sum(z**2 / total + jnp.log(2 * jnp.pi * total))

    def noised(self, sigma: Scalar) -> "Gaussian":
        """Return the law of x0 + sigma z."""
        return dataclasses.replace(self, spectrum=self.spectrum + sigma**2)

    def posterior(
        self, matrix: Float[Array, "m d"], y: Float[Array, "..."], noise_std: Scalar
    ) -> "Gaussian":
        """Return the law of x0 given y = matrix x0 + N(0, noise_std^2 I).

        Args:
          matrix: A as [m, d].
          y: [m] (or any shape of m entries).
          noise_std: scalar > 0.
        """
        cross = self.covariance @ matrix.T
        gram = matrix @ cross + noise_std**2 * jnp.eye(matrix.shape[0])
        gain = jnp.linalg.solve(gram, cross.T).T
        residual = y.ravel() - matrix @ self.mean.ravel()
        mean = self.mean + (gain @ residual).reshape(self.mean.shape)
        covariance = self.covariance - gain @ cross.T
        return Gaussian.from_covariance(mean, (covariance + covariance.T) / 2)


@struct.dataclass
class Mixture:
    """A mixture of Gaussians over images.

    Attributes:
      log_weights: [K], log of weights that sum to 1.
      components: one `Gaussian` whose leaves have a leading axis [K].
    """

    log_weights: Array
    components: Gaussian

    @classmethod
    def of(cls, weights: Any, components: list[Gaussian]) -> "Mixture":
        """Stack `components`; `weights` [K] are normalised."""
        weights = jnp.asarray(weights)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *components)
        return cls(jnp.log(weights / weights.sum()), stacked)

    def log_prob(self, x: Float[Array, "..."], sigma: Scalar = 0.0) -> Float[Array, ""]:
        """Return the log density of x0 + sigma z at `x`, nats."""
        each = jax.vmap(lambda c: c.log_prob(x, sigma))(self.components)
        return jax.nn.logsumexp(self.log_weights + each)

    def __call__(
        self, x: Float[Array, "*shape"], sigma: Scalar
    ) -> Float[Array, "*shape"]:
        """Return E[x0 | x_sigma = x]; see `types.Denoiser`."""
        logits = jax.vmap(lambda c: c.log_prob(x, sigma))(self.components)
        rho = jax.nn.softmax(self.log_weights + logits)
        denoised = jax.vmap(lambda c: c(x, sigma))(self.components)
        return jnp.tensordot(rho, denoised, 1)

    def variance(self, sigma: Scalar) -> Float[Array, ""]:
        """Return the mean over components of tr Cov(x0 | x_sigma, k) / d.

        A lower bound: it leaves out the uncertainty about the component.
        """
        each = jax.vmap(lambda c: c.variance(sigma))(self.components)
        return jnp.exp(self.log_weights) @ each

    def sample(self, key: PRNGKey) -> Float[Array, "..."]:
        """Draw one image."""
        key_k, key_x = jax.random.split(key)
        k = jax.random.categorical(key_k, self.log_weights)
        return jax.tree.map(lambda leaf: leaf[k], self.components).sample(key_x)

    def log_evidence(
        self, matrix: Float[Array, "m d"], y: Float[Array, "..."], noise_std: Scalar
    ) -> Float[Array, ""]:
        """Return log p(y) in nats, y = matrix x0 + N(0, noise_std^2 I)."""
        return jax.nn.logsumexp(self._joint(matrix, y, noise_std))

    def posterior(
        self, matrix: Float[Array, "m d"], y: Float[Array, "..."], noise_std: Scalar
    ) -> "Mixture":
        """Return the law of x0 given y; see `Gaussian.posterior`."""
        weights = jax.nn.log_softmax(self._joint(matrix, y, noise_std))
        return Mixture(
            weights,
            jax.vmap(lambda c: c.posterior(matrix, y, noise_std))(self.components),
        )

    def _joint(self, matrix, y, noise_std):
        def log_p(c):
            mean = (matrix @ c.mean.ravel()).reshape(y.shape)
            cov = matrix @ c.covariance @ matrix.T
            noise = noise_std**2 * jnp.eye(len(matrix))
            return Gaussian.from_covariance(mean, cov + noise).log_prob(y)

        return self.log_weights + jax.vmap(log_p)(self.components)


def gaussian_kl(q: Gaussian, p: Gaussian) -> Float[Array, ""]:
    """Return KL(q || p) in nats.

    1/2 [tr(P^-1 Q) - d + (m_q - m_p)^T P^-1 (m_q - m_p) + ln det P - ln det Q].

    A singular covariance gives inf or nan, not an error.
    """
    shift = p.basis.T @ (q.mean - p.mean).ravel()
    overlap = (p.basis.T @ q.basis) ** 2 @ q.spectrum
    return 0.5 * jnp.sum(
        (overlap + shift**2) / p.spectrum
        - 1
        + jnp.log(p.spectrum)
        - jnp.log(q.spectrum)
    )


def mixture_posterior_kl(
    prior: Mixture,
    matrix: Float[Array, "m d"],
    y: Float[Array, "..."],
    noise_std: Scalar,
) -> Float[Array, ""]:
    """Return KL(p(x0 | y) || p(x0)) = E_post[log p(y | x0)] - log p(y), nats."""
    posterior = prior.posterior(matrix, y, noise_std)

    def expected_misfit(c):
        residual = y.ravel() - matrix @ c.mean.ravel()
        return residual @ residual + jnp.trace(matrix @ c.covariance @ matrix.T)

    misfit = jnp.exp(posterior.log_weights) @ jax.vmap(expected_misfit)(
        posterior.components
    )
    log_likelihood = -0.5 * misfit / noise_std**2
    log_likelihood -= 0.5 * y.size * jnp.log(2 * jnp.pi * noise_std**2)
    return log_likelihood - prior.log_evidence(matrix, y, noise_std)
