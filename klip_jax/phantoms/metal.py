"""Metal in abdominal CT, made as a scanner makes it: with the line integrals p = R mu,

    counts ~ Poisson(I0 (exp(-p) + s)),    error = -log(counts / I0) - p,

on the rays that cross the metal, where the scattered share s outweighs what is left of
the beam; the streaks are the filtered back-projection R^T (ramp * error). At least
I0 s = 20 photons arrive, so a Gaussian stands for the Poisson law.

Reference: De Man et al. 1999, Metal streak artifacts in X-ray computed tomography: a
simulation study.
"""

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.phantoms.anatomy import Phantom, window
from klip_jax.phantoms.radon import back_projection, line_integrals

WATER = 0.19  # attenuation at 70 keV, 1/cm
METAL = (1.5, 4.0)  # 1/cm: from titanium towards steel
FIELD_OF_VIEW = 40.0  # cm
PHOTONS = 1e6  # a ray
SCATTER = 2e-5  # share of the open beam
METAL_HU = 20.0  # change inside the window that counts as streak


def metal(key: Array, anatomy: Phantom) -> tuple[Array, Array]:
    """Add a metal disc and the streaks of photon starvation.

    The disc is centred on an eligible pixel, with a radius of 1-2 pixels at size 64
    (0.6-1.3 cm in a field of view of 40 cm).

    Args:
      key: PRNG key.
      anatomy: a `Phantom` of arrays [H, W] with at least one eligible pixel.

    Returns:
      Attenuation [H, W], HU, and the mask [H, W]: where it changed by more than
      `METAL_HU` inside the window of the images.
    """
    size = len(anatomy.hu)
    key_place, key_disc, key_noise = jax.random.split(key, 3)
    lot = jax.random.uniform(key_place, (size, size), minval=1.0, maxval=2.0)
    pixel = jnp.argmax(jnp.where(anatomy.eligible, lot, 0.0))
    u = jax.random.uniform(key_disc, (4,))
    radius = (1.0 + u[0]) * size / 64.0
    attenuation = METAL[0] + (METAL[1] - METAL[0]) * u[1]
    y = jnp.arange(size)[:, None] - pixel // size - u[2] + 0.5
    x = jnp.arange(size) - pixel % size - u[3] + 0.5
    disc = jnp.clip(0.5 + radius - jnp.hypot(x, y), 0.0, 1.0)

    pixel_cm = FIELD_OF_VIEW / size
    mu = WATER * (1.0 + anatomy.hu / 1000.0) * pixel_cm
    mu = mu + disc * (attenuation * pixel_cm - mu)
    p, trace = line_integrals(mu), line_integrals(disc)
    expected = PHOTONS * (jnp.exp(-p) + SCATTER)
    noise = jax.random.normal(key_noise, p.shape)
    counts = expected + jnp.sqrt(expected) * noise
    error = -jnp.log(jnp.maximum(counts, 1.0) / PHOTONS) - p
    error = jnp.where(trace > 0.0, error, 0.0)
    mu = mu + back_projection(error, size)
    hu = 1000.0 * (mu / (WATER * pixel_cm) - 1.0)
    change = window(hu) - window(anatomy.hu)
    return hu, jnp.abs(change[..., 0]) > METAL_HU / 400.0
