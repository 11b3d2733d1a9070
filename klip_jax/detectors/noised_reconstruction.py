"""Reconstruction from partial noise: what the prior does not put back is odd.

    e_s = mean over z of |x - x^_s|^2,   x^_s = the chain from x + s z down to 0.

One level is AnoDDPM, whose map is e_s; many levels with z-scores of each against
in-distribution images (`detectors.base`) are DDPM-OOD. Both take a clean image, so what
comes from measurements is reconstructed first.

Departures: DDIM of few steps, where AnoDDPM runs the ancestral chain and DDPM-OOD a
multistep one (PLMS); Gaussian noise, where AnoDDPM prefers simplex noise, for which the
prior would have to be trained; squared error only, without LPIPS.

Reference: Wyatt et al. 2022 (AnoDDPM); Graham et al. 2023 (DDPM-OOD).
"""

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.detectors.base import reconstruct
from klip_jax.guidance.base import NoMeasurement
from klip_jax.types import Denoiser


def errors(
    key: Array,
    x: Array,
    prior: Denoiser,
    levels: Array,
    *,
    steps: int = 10,
    draws: int = 1,
) -> Array:
    """Return the squared error of the reconstruction from each noise level.

    Args:
      key: draw n of level l uses fold_in(fold_in(key, l), n).
      x: image [H, W, C], image units.
      prior: a denoiser.
      levels: noise levels to start from [L], > 0, image units, in any order.
      steps: of each chain, >= 1.
      draws: of the noise, averaged over, >= 1.

    Returns:
      Maps [L, H, W], squared image units, summed over channels.

    Raises:
      ValueError: if there is no step or no draw.

    Reference: Wyatt et al. 2022, with DDIM for the ancestral chain.
    """
    if draws < 1:
        raise ValueError(f"draws={draws}: need at least 1 draw of the noise")

    def at(inputs):
        index, sigma = inputs
        key_level = jax.random.fold_in(key, index)

        def squares(n):
            key_draw = jax.random.fold_in(key_level, n)
            nothing = NoMeasurement()
            back = reconstruct(key_draw, x, prior, nothing, sigma, steps=steps)
            return jnp.sum((back - x) ** 2, -1)

        return jax.vmap(squares)(jnp.arange(draws)).mean(0)

    return jax.lax.map(at, (jnp.arange(len(levels)), levels))


def network_calls(levels: int, *, steps: int = 10, draws: int = 1) -> int:
    """Return the network calls an image costs: levels * steps * draws."""
    return levels * steps * draws
