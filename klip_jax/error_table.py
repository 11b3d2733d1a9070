"""The table of a prior's own errors, E||x0 - D(x0 + sigma z, sigma)||^2 / d by level.

It ships with the weights: `Denoiser.variance` reads it, and so does the factor of a law
(`calibration.error_ratio`).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from klip_jax.types import Denoiser


def denoising_errors(
    prior: Denoiser,
    images: Float[np.ndarray, "n h w c"],
    levels: Float[np.ndarray, " l"],
    *,
    seed: int = 0,
    labels: Int[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " l"]:
    """Return E||x0 - D(x0 + sigma z, sigma)||^2 / d at each noise level.

    Args:
      prior: any denoiser.
      images: [N, H, W, C] in [0, 1], all used at every level.
      levels: [L] noise levels in image units.
      seed: of the noise.
      labels: [N] the class of each image, which a `types.Conditional` prior is told;
        None tells it nothing.

    Returns:
      [L], squared image units.
    """

    @jax.jit
    def error(prior, x0, label, sigma, key):
        x = x0 + sigma * jax.random.normal(key, x0.shape)

        def denoise(x, label):
            own = prior if label is None else prior.given(label)
            return own(x, sigma)

        return jnp.mean((jax.vmap(denoise)(x, label) - x0) ** 2)

    def at(level, sigma):
        key = jax.random.fold_in(jax.random.key(seed), level)
        parts = [slice(i, i + 32) for i in range(0, len(images), 32)]
        values = [
            error(
                prior,
                jnp.asarray(images[part]),
                None if labels is None else jnp.asarray(labels[part]),
                jnp.float32(sigma),
                jax.random.fold_in(key, i),
            )
            for i, part in enumerate(parts)
        ]
        return np.average(np.array(values), weights=[len(images[p]) for p in parts])

    return np.array([at(level, sigma) for level, sigma in enumerate(levels)])
