"""What the samplers share: the first state, the next one, Langevin steps, checks.

docs/theory.md, section 9.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from klip_jax.types import Denoiser, Guidance, Image, PRNGKey, Scalar


class FromNoise:
    """A sampler whose chain starts from noise, with one network call a step."""

    @property
    def calls_per_step(self) -> int:
        """Network calls of one step."""
        return 1

    def init(self, key: PRNGKey, shape: tuple[int, ...], sigma: Scalar) -> Image:
        """Draw x ~ N(0, sigma^2 I): at the highest level the image no longer shows."""
        return sigma * jax.random.normal(key, shape, jnp.asarray(sigma).dtype)


def next_state(
    z: Image, x: Image, x0: Image, shift: Image | float, keep: Scalar, noise_std: Scalar
) -> Image:
    """Return x0 + keep (x - x0) + shift + noise_std z, the step of DDIM and its kin.

    Args:
      z: fresh noise, standard normal.
      x, x0: the state, and what it is without noise; image units.
      shift: what the measurements add, image units.
      keep: share of the state's own noise that stays, dimensionless.
      noise_std: of the fresh noise, image units.
    """
    return x0 + keep * (x - x0) + shift + noise_std * z


def langevin_steps(
    key: PRNGKey,
    x: Image,
    denoiser: Denoiser,
    guidance: Guidance,
    scan: Any,
    sigma: Scalar,
    sizes: Float[Array, " k"],
    noises: Float[Array, " k"],
) -> tuple[Image, Image, Image]:
    """Take K steps x' = x + r s^2 (score + guidance) + e s z at one level s.

    Args:
      key: split into K, one for each z.
      x: the state, image units.
      denoiser, guidance, scan: see `types`.
      sigma: s, image units.
      sizes: r, dimensionless; 1 moves to the denoised image D_y.
      noises: e, dimensionless; sqrt(2 r) makes a Langevin step.

    Returns:
      (x, x0, shift): the last state, the last denoised image D, and the sum of what the
      guidance added.
    """

    def step(carry, inputs):
        x, _, shift = carry
        key, size, noise = inputs
        x0, score = guidance.score(denoiser, scan, x, sigma)
        pull = size * sigma**2 * score
        z = jax.random.normal(key, x.shape, x.dtype)
        return (x + size * (x0 - x) + pull + noise * sigma * z, x0, shift + pull), None

    inputs = jax.random.split(key, len(sizes)), sizes, noises
    (x, x0, shift), _ = jax.lax.scan(step, (x, x, jnp.zeros_like(x)), inputs)
    return x, x0, shift


def is_number(value: Any) -> bool:
    """Return whether a setting can be checked; inside jit it is traced."""
    return isinstance(value, int | float)


def check_eta(eta: Scalar) -> None:
    """Raise a ValueError unless `eta` >= 0."""
    if is_number(eta) and not eta >= 0:
        raise ValueError(f"eta={eta}: the noise multiplier must be >= 0")


def check_langevin(size: Scalar, steps: int | float) -> None:
    """Raise a ValueError unless 0 < `size` <= 1 and `steps` is an integer >= 1."""
    if is_number(size) and not 0 < size <= 1:
        raise ValueError(
            f"size={size}: a Langevin step needs 0 < size <= 1, in units of sigma^2; "
            "from 2 on it is unstable"
        )
    if steps < 1 or steps % 1:
        raise ValueError(f"steps={steps}: must be an integer >= 1; steps at each level")
