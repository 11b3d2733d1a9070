"""PaDIS: a prior over images from a network that has only seen patches.

The image stands on a canvas, P zeros on each side, which n x n patches of p pixels
cover from an offset (a, b), none overlapping. Each is denoised with the coordinates of
its pixels beside it, and what lies outside the image is known to be zero:

    D_k(x_k, sigma) = c_skip x_k + c_out F([c_in x_k, pos_k], c_noise)

with EDM's coefficients, images in [0, 1] as they are. Over random offsets the seams of
the patches average out.

Reference: Hu et al. 2024, eq. 3-5 and algorithm 1; Karras et al. 2022, table 1. Unlike
theirs, offsets and the noise around the image come from a key.
"""

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.priors.base import NetworkPrior


class Patches(NetworkPrior):
    """A denoiser of images from a denoiser of patches.

    Args:
      params: the network's parameters.
      net: a flax.linen module; `net.apply(params, [p, p, C + 2], c_noise)`, where the
        last two channels are column and row of each pixel on the canvas in [-1, 1].
      patch: p, pixels.
      pad: P, pixels.
      sigma_data: of EDM's preconditioning, > 0.
      levels, errors: the table of expected errors; see `NetworkPrior`.

    Raises:
      ValueError: if patch, pad or sigma_data is not positive.
    """

    def __init__(
        self,
        params,
        net,
        *,
        patch: int = 56,
        pad: int = 24,
        sigma_data: float = 0.5,
        levels=(),
        errors=(),
    ):
        if patch < 1 or pad < 1 or sigma_data <= 0:
            raise ValueError(
                f"patch={patch}, pad={pad}, sigma_data={sigma_data}: must be positive"
            )
        super().__init__(params, net, levels=levels, errors=errors)
        self.patch, self.pad, self.sigma_data = int(patch), int(pad), float(sigma_data)

    def __call__(self, x: Array, sigma: Array, *, key: Array | None = None) -> Array:
        """Denoise `x` [H, W, C] at `sigma`; see `types.Denoiser`.

        The key draws the offset and the noise around the image. Without one the patches
        are centred, and zeros without noise are around the image.
        """
        margins = (self.pad, self.pad), (self.pad, self.pad), (0, 0)
        canvas = jnp.pad(x, margins)
        limit = self.offsets(x.shape)
        offset = jnp.asarray([n // 2 for n in limit])
        if key is not None:
            key_offset, key_noise = jax.random.split(key)
            offset = jax.random.randint(key_offset, (2,), 0, jnp.asarray(limit))
            noise = sigma * jax.random.normal(key_noise, canvas.shape, canvas.dtype)
            canvas = jnp.where(self._inside(canvas.shape), canvas, noise)
        found = self.denoise_canvas(canvas, sigma, offset)
        return found[self.pad : -self.pad, self.pad : -self.pad]

    def denoise_canvas(self, x: Array, sigma: Array, offset: Array) -> Array:
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

        found = jax.vmap(denoise)(seen.reshape(rows * columns, p, p, c + 2))
        found = found.reshape(rows, columns, p, p, c).swapaxes(1, 2)
        found = found.reshape(*covered, c)
        canvas = jax.lax.dynamic_update_slice(jnp.zeros_like(x), found, start)
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
        return tuple(min(self.pad, n + 1) for n in spare)

    def _counts(self, shape):
        return [-(-(n + self.pad) // self.patch) for n in shape[:2]]

    def _inside(self, shape):
        rows, columns = (
            (jnp.arange(n) >= self.pad) & (jnp.arange(n) < n - self.pad)
            for n in shape[:2]
        )
        return (rows[:, None] & columns)[..., None]


def positions(height: int, width: int) -> Array:
    """Return column and row of each pixel in [-1, 1], [H, W, 2]."""
    rows, columns = jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width)
    return jnp.stack(jnp.meshgrid(columns, rows), -1)
