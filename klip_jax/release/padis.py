"""The release's PaDIS: Langevin steps of a patch prior, each with a move to the data.

The state is a canvas, the image and P pixels around it. At each level s, K times, with
patches from a random offset, D the denoised image and r = y - A D,

    u  = zeta J^T A^T r / |r|,   J = dD / d canvas, through the network
    x <- x + u + (s^2 / 4) score + (s / sqrt(2)) z,   without z at the last level.

zeta / |r| is no likelihood's step, and nothing scales with that of the levels, which is
uneven (`sde.karras_levels`): the energy of the sum of u, over g^2 = s, is a score, not
nats. The release squares the mean over samples (`release.scoring`, `runs_axis`).

Reference: Hu et al. 2024, algorithm 1 (PaDIS); Chung et al. 2023 (DPS), as released
with Kheirandish, Hong and Fridovich-Keil 2026.
"""

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.guidance.base import Measured
from klip_jax.priors.patches import Patches
from klip_jax.types import Sampler, StepInfo


def padis(pad: int = 24, zeta: float = 0.3, steps: int = 10) -> Sampler:
    """Langevin steps of the patch prior at level s; s' only says if it is the last.

    Args:
      pad: P of the prior, >= 1; the state is [H + 2 P, W + 2 P, C].
      zeta: length of a step's move, in units of J^T A^T, > 0.
      steps: K >= 1 at each level.

    Returns:
      A `Sampler` for `priors.patches.Patches`. Its `init` takes the shape of the image
      and puts zeros around the noise, as the release does. shift [H, W, C] is the sum
      of the K moves u inside the image; noise_var = 0: no path KL.

    Raises:
      ValueError: if a setting is out of range.
    """
    if pad < 1 or steps < 1 or not zeta > 0:
        raise ValueError(f"pad={pad}, zeta={zeta}, steps={steps}: must be positive")

    def init(key, shape, sigma):
        x = sigma * jax.random.normal(key, shape, jnp.asarray(sigma).dtype)
        return jnp.pad(x, ((pad, pad), (pad, pad), (0, 0)))

    def step(key, x, denoiser, likelihood, sigma, sigma_next):
        key_offsets, key_noise = jax.random.split(key)
        limit = jnp.asarray(denoiser.offsets(likelihood.operator.in_shape))
        offsets = jax.random.randint(key_offsets, (steps, 2), 0, limit)
        z = jax.random.normal(key_noise, (steps, *x.shape), x.dtype)
        noises = jnp.where(jnp.asarray(sigma_next) == 0, 0, z)
        x, info = move(offsets, noises, x, denoiser, likelihood, sigma, zeta=zeta)
        return x, info._replace(sigma_next=sigma_next)

    return Sampler(init, step)


def move(
    offsets: Array,
    noises: Array,
    x: Array,
    prior: Patches,
    likelihood: Measured,
    sigma: Array,
    *,
    zeta: float = 0.3,
    as_recorded: bool = False,
) -> tuple[Array, StepInfo]:
    """Take the K steps of `padis` at one level with the given offsets and noises.

    Args:
      offsets: first patch of each step [K, 2], (row, column).
      noises: standard normal [K, H + 2 P, W + 2 P, C], or zeros.
      x: the canvas at sigma [H + 2 P, W + 2 P, C], image units.
      prior: the patch prior.
      likelihood: its operator and y.
      sigma: s, scalar, image units.
      zeta: see `padis`.
      as_recorded: let shift be the sum of (x + u) - x, as in the release: u with the
        rounding error of the canvas, 1e-4 of it at high noise.

    Returns:
      (x', StepInfo).
    """
    pad = prior.pad

    def inside(canvas):
        return canvas[pad:-pad, pad:-pad]

    def step(carry, inputs):
        x, _, shift = carry
        offset, z = inputs
        denoise = lambda x: prior.denoise_canvas(x, sigma, offset)  # noqa: E731
        x0, pullback = jax.vjp(denoise, x)
        residual = likelihood.residual(inside(x0))
        length = jnp.maximum(jnp.linalg.norm(residual.ravel()), 1e-12)
        data = likelihood.operator.adjoint(residual / length)
        (u,) = pullback(jnp.pad(zeta * data, ((pad, pad), (pad, pad), (0, 0))))
        moved = x + u
        shift = shift + inside(moved - x if as_recorded else u)
        x = moved + (x0 - x) / 4 + sigma / 2**0.5 * z
        return (x, inside(x0), shift), None

    empty = jnp.zeros_like(inside(x))
    (x, x0, shift), _ = jax.lax.scan(step, (x, empty, empty), (offsets, noises))
    return x, StepInfo(sigma, sigma, x0, shift, sigma * 0)


def training_g(sigma: Array) -> Array:
    """Return g at sigma, the release's normalisation: its SDE's, less a sqrt(2)."""
    return jnp.sqrt(sigma)
