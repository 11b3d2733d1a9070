"""What the samplers share: the first state, Langevin steps, checks of settings."""

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.types import Denoiser, Likelihood


def gaussian_init(key: Array, shape: tuple[int, ...], sigma: Array) -> Array:
    """Draw x ~ N(0, sigma^2 I): at the highest level the image no longer shows."""
    return sigma * jax.random.normal(key, shape, jnp.asarray(sigma).dtype)


def langevin_steps(
    key: Array,
    x: Array,
    denoiser: Denoiser,
    likelihood: Likelihood,
    sigma: Array,
    sizes: Array,
    noises: Array,
) -> tuple[Array, Array, Array]:
    """Take K steps x' = x + r s^2 (score + guidance) + e s z at one level s.

    Args:
      key: split into K, one for each z.
      x: [H, W, C].
      denoiser, likelihood: see `types`.
      sigma: s, scalar, image units.
      sizes: r [K], dimensionless; 1 moves to the denoised image D_y.
      noises: e [K], dimensionless; sqrt(2 r) makes a Langevin step.

    Returns:
      (x, x0, shift): the last state, the last denoised image D, and the sum of what the
      guidance added, each [H, W, C].
    """

    def step(carry, inputs):
        x, _, shift = carry
        key, size, noise = inputs
        x0, guidance = likelihood.score(denoiser, x, sigma)
        pull = size * sigma**2 * guidance
        z = jax.random.normal(key, x.shape, x.dtype)
        return (x + size * (x0 - x) + pull + noise * sigma * z, x0, shift + pull), None

    inputs = jax.random.split(key, len(sizes)), sizes, noises
    (x, x0, shift), _ = jax.lax.scan(step, (x, x, jnp.zeros_like(x)), inputs)
    return x, x0, shift


def check_eta(eta: float) -> None:
    """Raise a ValueError if `eta` is negative."""
    if eta < 0:
        raise ValueError(f"eta={eta}: the noise multiplier must be >= 0")


def check_langevin(size: float, steps: int) -> None:
    """Raise a ValueError unless 0 < `size` <= 1 and `steps` is an integer >= 1."""
    if not 0 < size <= 1:
        raise ValueError(
            f"size={size}: a Langevin step needs 0 < size <= 1, in units of sigma^2; "
            "from 2 on it is unstable"
        )
    if steps < 1 or steps % 1:
        raise ValueError(f"steps={steps}: must be an integer >= 1; steps at each level")
