"""A sequential Monte Carlo reference: the twisted diffusion sampler.

P particles go down the levels of the ancestral chain p(x' | x) = N(m, v I) together.
Each is moved by an approximate likelihood score g and weighted for what that leaves:

    x' ~ N(m + (s^2 - s'^2) g(x), v I),
    w  = p(x' | x) L_s'(x') / (q(x' | x) L_s(x)),   L_s(x) = N(y; A D, c A A^T + S),

with c the prior's expected error at s, and 0 at the lowest level, where L is the true
likelihood of the picture D that is returned. Whatever c and g are, the draws are those
of the chain's own posterior as P grows: what is left is the error of the steps, which
many levels make small. So it tells how far other samplers are from the posterior of the
SAME prior. Particles are drawn anew (systematically) when less than half of them count.

Use it where P network calls a level can be paid; in many dimensions few particles carry
all the weight, which `effective` tells.

Reference: Wu et al. 2023 (TDS), algorithm 1; Cardoso et al. 2024 (MCG-diff) is another;
Douc and Cappe 2005 (systematic resampling); docs/theory.md, section 9.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax import sde, struct
from klip_jax.guidance.conditional_gaussian import ConditionalGaussian
from klip_jax.posterior import at_null_label, misfit
from klip_jax.scan import residual, whitened
from klip_jax.types import Guidance, Image, Posterior, PRNGKey, Scalar, Scan


class Particles(NamedTuple):
    """What the particles came to.

    Attributes:
      x: the pictures D at the lowest level, image units.
      log_weights: normalised.
      effective: the least share of the particles, over the levels, that counted.
      first_bad_step: first level with a weight that is no number, -1 if none.
    """

    x: Float[Array, "p h w c"]
    log_weights: Float[Array, " p"]
    effective: Float[Array, ""]
    first_bad_step: Array


@struct.dataclass
class Twisted:
    """Draws of a posterior by sequential Monte Carlo; called as `PosteriorSampler` is.

    Attributes:
      guidance: the score that moves the particles; any is right, a good one is better.
      particles: P >= 2, one network call a level each.
      samples: N draws that are returned, >= 1, of the P by their weights.
      steps: T noise levels, >= 2.
      sigma_max, sigma_min: the highest and the lowest, image units.

    Raises:
      ValueError: naming the first setting that cannot work.
    """

    guidance: Guidance = ConditionalGaussian()
    particles: int = struct.field(pytree_node=False, default=64)
    samples: int = struct.field(pytree_node=False, default=6)
    steps: int = struct.field(pytree_node=False, default=100)
    sigma_max: Scalar = 20.0
    sigma_min: Scalar = 0.01

    def __post_init__(self):
        for name, least in (("particles", 2), ("samples", 1), ("steps", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value}: need an integer >= {least}")
        low, high = self.sigma_min, self.sigma_max
        numbers = isinstance(low, int | float) and isinstance(high, int | float)
        if numbers and not 0 < low < high < float("inf"):
            raise ValueError(
                f"sigma_min={low}, sigma_max={high}: need 0 < lowest < highest"
            )

    @property
    def network_calls(self) -> int:
        """Network calls an image, where the guidance takes none of its own."""
        return self.particles * self.steps

    def levels(self) -> Float[Array, " t"]:
        """Return the noise levels [T], decreasing, image units."""
        return sde.log_levels(self.steps, self.sigma_min, self.sigma_max)[::-1]

    def __call__(self, key: PRNGKey, scan: Scan, prior: Any) -> Posterior:
        """Draw the posterior of one scan. Pure: jit it, vmap it.

        Args:
          key: of everything.
          scan: what was measured.
          prior: a denoiser; a prior that knows classes is taken at its null label.

        Returns:
          A `Posterior`, its N samples drawn by their weights, which may repeat; mean
          and standard deviation are those of all particles.
        """
        key_run, key_draw = jax.random.split(key)
        drawn = self.run(key_run, scan, prior)
        which = jax.random.categorical(
            key_draw, drawn.log_weights, shape=(self.samples,)
        )
        weights, x = jnp.exp(drawn.log_weights), drawn.x[which]
        mean = jnp.tensordot(weights, drawn.x, 1)
        std = jnp.sqrt(jnp.tensordot(weights, (drawn.x - mean) ** 2, 1))
        return Posterior(x, mean, std, misfit(scan, x), drawn.first_bad_step)

    def run(self, key: PRNGKey, scan: Scan, prior: Any) -> Particles:
        """Return the particles and their weights; level t uses fold_in(key, t)."""
        denoiser, sigmas = at_null_label(prior), self.levels()
        count, shape = self.particles, scan.operator.in_shape

        def seen(x, sigma, error):
            def one(x):
                x0, score = self.guidance.score(denoiser, scan, x, sigma)
                return x0, score, _log_likelihood(scan, x0, error)

            return jax.vmap(one)(x)

        def step(carry, inputs):
            x, (x0, score, log_l), log_w, least, bad = carry
            t, sigma, sigma_next = inputs
            key_anew, key_z = jax.random.split(jax.random.fold_in(key, t))
            effective = _effective(log_w)
            anew = effective < 0.5
            which = jnp.where(anew, _systematic(key_anew, log_w), jnp.arange(count))
            x, x0, score, log_l = (leaf[which] for leaf in (x, x0, score, log_l))
            log_w = jnp.where(anew, jnp.full(count, -jnp.log(count)), log_w)

            v = sigma**2 - sigma_next**2
            noise_var, shift = v * (sigma_next / sigma) ** 2, v * score
            noise = jnp.sqrt(noise_var) * jax.random.normal(key_z, x.shape, x.dtype)
            x = x + v * (x0 - x) / sigma**2 + shift + noise
            # log p - log q of what was drawn: N(m) against N(m + shift).
            given = -jnp.sum(shift * (noise + shift / 2), (1, 2, 3)) / noise_var
            last = t == len(sigmas) - 1
            error = jnp.where(last, 0, denoiser.variance(sigma_next))
            new = seen(x, sigma_next, error)
            log_w = log_w + given + new[-1] - log_l
            log_w = log_w - jax.nn.logsumexp(log_w)
            bad = jnp.where((bad < 0) & ~jnp.isfinite(log_w).any(), t, bad)
            return (x, new, log_w, jnp.minimum(least, effective), bad), None

        noise = jax.random.normal(jax.random.fold_in(key, 0), (count, *shape))
        x = sigmas[0] * noise.astype(sigmas.dtype)
        first = seen(x, sigmas[0], denoiser.variance(sigmas[0]))
        log_w = first[-1] - jax.nn.logsumexp(first[-1])
        carry = (x, first, log_w, _effective(log_w), jnp.int32(-1))
        steps = jnp.arange(1, len(sigmas), dtype=jnp.int32)
        carry, _ = jax.lax.scan(step, carry, (steps, sigmas[:-1], sigmas[1:]))
        _, (x0, *_), log_w, least, bad = carry
        return Particles(x0, log_w, jnp.minimum(least, _effective(log_w)), bad)


def _log_likelihood(scan: Scan, x0: Image, variance: Scalar) -> Float[Array, ""]:
    """Return log N(y; A x0, variance A A^T + S) but for what x0 does not change."""
    if jnp.ndim(scan.noise_std):
        scan = whitened(scan)
    r = residual(scan, x0)
    u = scan.operator.solve_gram(r, variance, scan.noise_std**2)
    return -jnp.real(jnp.vdot(r, u)) / 2


def _effective(log_w):
    """Return the share of the particles that count, 1 / (P sum w^2), in (0, 1]."""
    return jnp.exp(-jax.nn.logsumexp(2 * log_w)) / len(log_w)


def _systematic(key, log_w):
    """Return which particles go on, each about P w times."""
    count = len(log_w)
    places = (jnp.arange(count) + jax.random.uniform(key)) / count
    total = jnp.cumsum(jnp.exp(log_w))
    which = jnp.searchsorted(total / total[-1], places.astype(total.dtype))
    return jnp.minimum(which, count - 1)
