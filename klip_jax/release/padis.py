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
from jaxtyping import Float, Int

from klip_jax import struct
from klip_jax.priors.patches import Patches
from klip_jax.samplers.base import is_number
from klip_jax.scan import residual
from klip_jax.types import Guidance, Image, PRNGKey, Scalar, Scan, StepInfo


@struct.dataclass
class PaDIS:
    """Langevin steps of the patch prior at level s; s' only says if it is the last.

    For `priors.patches.Patches`; it takes operator and y of the scan, not the guidance.
    Its `init` takes the shape of the image and puts zeros around the noise, as the
    release does: the state is a canvas [H + 2 P, W + 2 P, C]. shift [H, W, C] is the
    sum of the K moves u inside the image; noise_var = 0: no path KL.

    Attributes:
      pad: P of the prior, >= 1.
      zeta: length of a step's move, in units of J^T A^T, > 0.
      steps: K >= 1 at each level.
      as_recorded: let shift be the sum of (x + u) - x, as in the release: u with the
        rounding error of the canvas, 1e-4 of it at high noise.

    Raises:
      ValueError: if a setting is out of range.
    """

    pad: int = struct.field(pytree_node=False, default=24)
    zeta: Scalar = 0.3
    steps: int = struct.field(pytree_node=False, default=10)
    as_recorded: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self):
        zeta = self.zeta
        if self.pad < 1 or self.steps < 1 or (is_number(zeta) and not zeta > 0):
            raise ValueError(
                f"pad={self.pad}, zeta={zeta}, steps={self.steps}: must be positive"
            )

    @property
    def calls_per_step(self) -> int:
        """Network calls of one step."""
        return self.steps

    def init(self, key: PRNGKey, shape: tuple[int, ...], sigma: Scalar) -> Image:
        """Draw the canvas: noise of `sigma` in the image, zeros around it."""
        x = sigma * jax.random.normal(key, shape, jnp.asarray(sigma).dtype)
        return self._padded(x)

    def step(
        self,
        key: PRNGKey,
        x: Float[Array, "H W c"],
        denoiser: Patches,
        guidance: Guidance,
        scan: Scan,
        sigma: Scalar,
        sigma_next: Scalar,
    ) -> tuple[Float[Array, "H W c"], StepInfo]:
        """Take K steps at `sigma`; see `types.Sampler`."""
        key_offsets, key_noise = jax.random.split(key)
        limit = jnp.asarray(denoiser.offsets(scan.operator.in_shape))
        offsets = jax.random.randint(key_offsets, (self.steps, 2), 0, limit)
        z = jax.random.normal(key_noise, (self.steps, *x.shape), x.dtype)
        noises = jnp.where(jnp.asarray(sigma_next) == 0, 0, z)
        new, info = self.move(offsets, noises, x, denoiser, scan, sigma)
        return new, info._replace(sigma_next=sigma_next)

    def move(
        self,
        offsets: Int[Array, "k 2"],
        noises: Float[Array, "k H W c"],
        x: Float[Array, "H W c"],
        prior: Patches,
        scan: Scan,
        sigma: Scalar,
    ) -> tuple[Float[Array, "H W c"], StepInfo]:
        """Take K steps at one level with given offsets and noises.

        Args:
          offsets: first patch of each step, (row, column).
          noises: standard normal, or zeros.
          x: the canvas at sigma, image units.
          prior: the patch prior.
          scan: what was measured.
          sigma: s, image units.

        Returns:
          (x', StepInfo), where x, x0 and shift are the image's, without its margins.
        """

        def step(carry, inputs):
            x, _, shift = carry
            offset, z = inputs
            denoise = lambda x: prior.denoise_canvas(x, sigma, offset)  # noqa: E731
            x0, pullback = jax.vjp(denoise, x)
            r = residual(scan, self._inside(x0))
            length = jnp.maximum(jnp.linalg.norm(r.ravel()), 1e-12)
            data = scan.operator.adjoint(r / length)
            (u,) = pullback(self._padded(self.zeta * data))
            moved = x + u
            shift = shift + self._inside(moved - x if self.as_recorded else u)
            x = moved + (x0 - x) / 4 + sigma / 2**0.5 * z
            return (x, self._inside(x0), shift), None

        image = self._inside(x)
        empty = jnp.zeros_like(image)
        (new, x0, shift), _ = jax.lax.scan(step, (x, empty, empty), (offsets, noises))
        return new, StepInfo(sigma, sigma, image, x0, shift, sigma * 0)

    def _inside(self, canvas):
        return canvas[self.pad : -self.pad, self.pad : -self.pad]

    def _padded(self, image):
        return jnp.pad(image, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)))


def training_g(sigma: Scalar) -> Scalar:
    """Return g at sigma, the release's normalisation: its SDE's, less a sqrt(2)."""
    return jnp.sqrt(sigma)
