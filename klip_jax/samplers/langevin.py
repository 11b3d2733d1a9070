"""Annealed Langevin dynamics: K steps at each noise level, nothing between levels.

    x' = x + r s^2 grad log p_s(x | y) + sqrt(2 r) s z

A direction of variance lambda is last renewed near s^2 = lambda h / (r K) on levels in
geometric progression of ratio e^-h, and keeps the noise of that level and of the step:
its variance comes out as lambda (1 + (1 / r + 1 / 2) h / K). Smaller steps are worse.
"""

from typing import Any

import jax.numpy as jnp

from klip_jax import struct
from klip_jax.samplers.base import FromNoise, check_langevin, langevin_steps
from klip_jax.types import Denoiser, Guidance, Image, PRNGKey, Scalar, StepInfo


@struct.dataclass
class Langevin(FromNoise):
    """Langevin steps at level s; s' only says whether they are the last.

    K times x <- x + r s^2 (score + guidance) + sqrt(2 r) s z, where the K-th before
    s' = 0 is x <- D_y = D + s^2 guidance. First order in h / K, see above. Needs sigma
    >= sigma_next >= 0; shift is the sum of r s^2 guidance; noise_var = 2 r s^2 if K =
    1, else 0: the kernel of several steps is no longer white. Repeating each level K
    times gives the same chain with its path KL.

    Attributes:
      size: r in (0, 1], the step in units of s^2.
      steps: K >= 1, network calls a level.

    Raises:
      ValueError: if `size` or `steps` is out of range.

    Reference: Song and Ermon 2019, algorithm 1; there alpha_i = 2 r s^2.
    """

    size: Scalar = 0.5
    steps: int = struct.field(pytree_node=False, default=1)

    def __post_init__(self):
        check_langevin(self.size, self.steps)

    @property
    def calls_per_step(self) -> int:
        """Network calls of one step."""
        return self.steps

    def step(
        self,
        key: PRNGKey,
        x: Image,
        denoiser: Denoiser,
        guidance: Guidance,
        scan: Any,
        sigma: Scalar,
        sigma_next: Scalar,
    ) -> tuple[Image, StepInfo]:
        """Go from `sigma` to `sigma_next`; see `types.Sampler`."""
        last = jnp.asarray(sigma_next) == 0
        sizes = jnp.full(self.steps, self.size, x.dtype)
        noises = jnp.sqrt(2 * sizes)
        sizes = sizes.at[-1].set(jnp.where(last, 1, sizes[-1]))
        noises = noises.at[-1].set(jnp.where(last, 0, noises[-1]))
        new, x0, shift = langevin_steps(
            key, x, denoiser, guidance, scan, sigma, sizes, noises
        )
        noise_var = (noises[0] * sigma) ** 2 if self.steps == 1 else sigma * 0
        return new, StepInfo(sigma, sigma_next, x, x0, shift, noise_var)
