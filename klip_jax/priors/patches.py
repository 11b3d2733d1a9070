"""PaDIS: a prior over images from a network that has only seen patches.

The image stands on a canvas, P zeros on each side, which n x n patches of p pixels
cover from an offset (a, b), none overlapping. Each is denoised with the coordinates of
its pixels beside it, and what lies outside the image is known to be zero:

    D_k(x_k, sigma) = c_skip x_k + c_out F([c_in x_k, pos_k], c_noise)

with EDM's coefficients, images in [0, 1] as they are. Over random offsets the seams of
the patches average out: training and the release draw them. As a denoiser, a function
of x and sigma alone, it centres the patches and puts zeros around the image.

Reference: docs/theory.md, section 1; Hu et al. 2024, eq. 3-5 and algorithm 1; Karras
et al. 2022, table 1. Unlike theirs, offsets and the noise around the image come from a
key.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from klip_jax import struct
from klip_jax.priors.base import NetworkPrior
from klip_jax.types import Image, PRNGKey, Scalar


class Patches(NetworkPrior):
    """A denoiser of images from a denoiser of patches.

    `net.apply(params, [p, p, C + 2], c_noise)`: the last two channels are column and
    row of each pixel on the canvas in [-1, 1].

    Attributes:
      patch: p, pixels.
      pad: P, pixels.

    The others are those of `NetworkPrior`; images of its training fill [0, 1].

    Raises:
      ValueError: if patch or pad is not positive.
    """

    low: float = struct.field(pytree_node=False, default=0.0)
    patch: int = struct.field(pytree_node=False, default=56)
    pad: int = struct.field(pytree_node=False, default=24)

    def __post_init__(self):
        super().__post_init__()
        if self.patch < 1 or self.pad < 1:
            raise ValueError(
                f"patch={self.patch}, pad={self.pad}: must be positive, in pixels"
            )

    def denoise(self, x: Image, sigma: Scalar) -> Image:
        """Denoise `x` from centred patches, with zeros without noise around it."""
        offset = jnp.asarray([n // 2 for n in self.offsets(x.shape)])
        canvas = self.denoise_canvas(self._padded(x), sigma, offset)
        return canvas[self.pad : -self.pad, self.pad : -self.pad]

    def denoise_in_training(self, key: PRNGKey, x: Image, sigma: Scalar) -> Image:
        """Denoise `x` from an offset that the key draws, with its noise around it."""
        key_offset, key_noise = jax.random.split(key)
        limit = jnp.asarray(self.offsets(x.shape))
        offset = jax.random.randint(key_offset, (2,), 0, limit)
        canvas = self._padded(x)
        noise = sigma * jax.random.normal(key_noise, canvas.shape, canvas.dtype)
        canvas = jnp.where(self._inside(canvas.shape), canvas, noise)
        canvas = self.denoise_canvas(canvas, sigma, offset)
        return canvas[self.pad : -self.pad, self.pad : -self.pad]

    def denoise_canvas(self, x: Image, sigma: Scalar, offset: Int[Array, "2"]) -> Image:
        """Denoise a canvas, all patches in one call of the network.

        Args:
          x: [H + 2 P, W + 2 P, C], noise outside the image too.
          sigma: noise level, scalar, image units.
          offset: (row, column) of the first patch, each below its entry of `offsets`.

        Returns:
          [H + 2 P, W + 2 P, C], zero outside the image.
        """
        c, p = x.shape[-1], self.patch
        rows, columns = self._counts([n - 2 * self.pad for n in x.shape[:2]])
        start = (offset[0], offset[1], 0)
        covered = rows * p, columns * p
        seen = jnp.concatenate([x, positions(*x.shape[:2]).astype(x.dtype)], -1)
        seen = jax.lax.dynamic_slice(seen, start, (*covered, c + 2))
        seen = seen.reshape(rows, p, columns, p, c + 2).swapaxes(1, 2)
        total = jnp.sqrt(sigma**2 + self.sigma_data**2)

        def denoise(both):
            patch, place = both[..., :c], both[..., c:]
            both = jnp.concatenate([patch / total, place], -1)
            f = self.net.apply(self.params, both, jnp.log(sigma) / 4)
            skip = (self.sigma_data / total) ** 2
            return skip * patch + sigma * self.sigma_data / total * f

        denoised = jax.vmap(denoise)(seen.reshape(rows * columns, p, p, c + 2))
        denoised = denoised.reshape(rows, columns, p, p, c).swapaxes(1, 2)
        denoised = denoised.reshape(*covered, c)
        canvas = jax.lax.dynamic_update_slice(jnp.zeros_like(x), denoised, start)
        return jnp.where(self._inside(x.shape), canvas, 0)

    def offsets(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return how many offsets there are along rows and columns of an image.

        Raises:
          ValueError: if the patches cannot cover the image and stay on the canvas.
        """
        counts = self._counts(shape)
        spare = [
            n + 2 * self.pad - count * self.patch
            for n, count in zip(shape[:2], counts, strict=True)
        ]
        if min(spare) < 0:
            raise ValueError(
                f"patches of {self.patch} pixels with pad={self.pad} cannot cover a "
                f"{shape[0]}x{shape[1]} image and stay on its canvas; give another pad"
            )
        rows, columns = (min(self.pad, n + 1) for n in spare)
        return rows, columns

    def _padded(self, x):
        return jnp.pad(x, ((self.pad, self.pad), (self.pad, self.pad), (0, 0)))

    def _counts(self, shape):
        return [-(-(n + self.pad) // self.patch) for n in shape[:2]]

    def _inside(self, shape):
        rows, columns = (
            (jnp.arange(n) >= self.pad) & (jnp.arange(n) < n - self.pad)
            for n in shape[:2]
        )
        return (rows[:, None] & columns)[..., None]


def positions(height: int, width: int) -> Float[Array, "h w 2"]:
    """Return column and row of each pixel in [-1, 1], [H, W, 2]."""
    rows, columns = jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width)
    return jnp.stack(jnp.meshgrid(columns, rows), -1)
