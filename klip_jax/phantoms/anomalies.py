"""Anomalies of abdominal CT with exact masks: a lesion, metal, a missing kidney.

Each is (key, Phantom) -> (hu, mask). Metal is made as a scanner makes it: with the line
integrals p = R mu of the attenuation,

    counts ~ Poisson(I0 (exp(-p) + s)),    error = -log(counts / I0) - p,

on the rays that cross the metal, where the scattered share s outweighs what is left of
the beam; the streaks are the filtered back-projection R^T (ramp * error). At least
I0 s = 20 photons arrive, so a Gaussian stands for the Poisson law.

Reference: De Man et al. 1999, Metal streak artifacts in X-ray computed tomography: a
simulation study; Kak and Slaney 1988, eq. 3.61 for the ramp.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.ndimage import map_coordinates

from klip_jax.phantoms import shapes
from klip_jax.phantoms.anatomy import Phantom, clear, phantom, window

WATER = 0.19  # attenuation at 70 keV, 1/cm
METAL = (1.5, 4.0)  # 1/cm: from titanium towards steel
FIELD_OF_VIEW = 40.0  # cm
PHOTONS = 1e6  # a ray
SCATTER = 2e-5  # share of the open beam
METAL_HU = 20.0  # change inside the window that counts as streak
_STREAM = 0x0DD  # anatomy and anomaly draw from different streams of one key


class Draw(NamedTuple):
    """One image and what is known of it.

    Attributes:
      image: [H, W, 1] in [0, 1].
      mask: True on the anomaly [H, W]; False everywhere without one.
      body: True inside the skin [H, W].
      eligible: True where a lesion may be centred [H, W].
      labels: tissue of the anatomy, before the anomaly [H, W], int32, a key of
        `atlas.TISSUES`. Keep it among the outputs of a jitted draw: without it XLA
        paints again for every neighbour that `eligible` looks at (twice the time).
    """

    image: Array
    mask: Array
    body: Array
    eligible: Array
    labels: Array


def draw(key: Array, kind: str = "id", size: int = 64) -> Draw:
    """Draw an image; one key gives one anatomy, whatever is done to it.

    Args:
      key: PRNG key.
      kind: one of `KINDS`, static: "id" for no anomaly.
      size: pixels along each side, static, >= 32.

    Returns:
      A `Draw` of arrays [size, size].

    Raises:
      ValueError: if `kind` is not in `KINDS` or size < 32.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r} but must be one of {sorted(KINDS)}")
    anatomy = phantom(key, size)
    hu, mask = KINDS[kind](jax.random.fold_in(key, _STREAM), anatomy)
    return Draw(
        image=window(hu),
        mask=mask,
        body=anatomy.body,
        eligible=anatomy.eligible,
        labels=anatomy.labels,
    )


def lesion(
    key: Array,
    anatomy: Phantom,
    contrast_hu: tuple[float, float] = (25.0, 60.0),
) -> tuple[Array, Array]:
    """Add a soft-edged ellipse to the tissue around an eligible point.

    hu + contrast * clip(1/2 - d / 2, 0, 1) at signed distance d in pixels. The centre
    is uniform over the eligible pixels and inside the pixel; the semi-axes are uniform
    in 2-5 pixels at size 64 and scale with the size; the orientation is uniform. Tissue
    within one pixel of bone, gas or the outside stays as it is.

    Args:
      key: PRNG key.
      anatomy: a `Phantom` of arrays [H, W] with at least one eligible pixel.
      contrast_hu: range of the uniform absolute contrast, HU; the sign is random.

    Returns:
      Attenuation [H, W], HU, and the mask [H, W]: where it changed by more than half
      of the contrast. The mask holds the centre's pixel and is never empty.
    """
    size = len(anatomy.hu)
    keys = jax.random.split(key, 6)
    lot = jax.random.uniform(keys[0], (size, size), minval=1.0, maxval=2.0)
    pixel = jnp.argmax(jnp.where(anatomy.eligible, lot, 0.0))
    shift = jax.random.uniform(keys[1], (2,), minval=-0.5, maxval=0.5)
    a, b = jax.random.uniform(keys[2], (2,), minval=2.0, maxval=5.0) * size / 64.0
    angle = jax.random.uniform(keys[3], maxval=np.pi)
    contrast = jax.random.uniform(
        keys[4], minval=contrast_hu[0], maxval=contrast_hu[1]
    ) * jax.random.rademacher(keys[5], (), jnp.float32)
    y = jnp.arange(size)[:, None] - pixel // size - shift[0]
    x = jnp.arange(size) - pixel % size - shift[1]
    distance = shapes.ellipse_distance(x, y, a, b, angle)
    tissue = clear(anatomy.labels)
    profile = jnp.where(tissue, jnp.clip(0.5 - 0.5 * distance, 0.0, 1.0), 0.0)
    return anatomy.hu + contrast * profile, profile > 0.5


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


def missing_kidney(key: Array, anatomy: Phantom) -> tuple[Array, Array]:
    """Replace one kidney by the fat behind it.

    Args:
      key: PRNG key; chooses the kidney.
      anatomy: a `Phantom` of arrays [H, W].

    Returns:
      Attenuation [H, W], HU, and the mask [H, W]: pixels of which the kidney, its sinus
      included, filled more than half. Pixels it filled in part change as well.
    """
    kidney = anatomy.kidneys[jax.random.randint(key, (), 0, 2)]
    return jnp.where(kidney > 0.0, anatomy.behind, anatomy.hu), kidney > 0.5


def _unchanged(key, anatomy):
    """No anomaly, an empty mask."""
    del key
    return anatomy.hu, jnp.zeros(anatomy.hu.shape, bool)


KINDS = {
    "id": _unchanged,
    "lesion": lesion,
    "metal": metal,
    "missing_kidney": missing_kidney,
}


def _angles(size):
    """Views over half a turn, 1.5 a pixel of the side: cosines and sines [A]."""
    angles = np.arange(3 * size // 2) * np.pi / (3 * size // 2)
    return jnp.array(np.cos(angles)), jnp.array(np.sin(angles))


def _bins(size):
    """Detector bins of one pixel across the diagonal, centred on the image [T]."""
    half = int(np.ceil(size / np.sqrt(2)))
    return jnp.arange(-half, half + 1.0)


def line_integrals(image: Array) -> Array:
    """Project an image [H, W] along parallel rays: [A, T], in pixel lengths."""
    size = len(image)
    t = _bins(size)
    middle = (size - 1) / 2

    def view(angle):
        cos, sin = angle
        x = cos * t[:, None] - sin * t + middle
        y = sin * t[:, None] + cos * t + middle
        return map_coordinates(image, [y, x], order=1).sum(1)

    return jax.lax.map(view, _angles(size))


def back_projection(sinogram: Array, size: int) -> Array:
    """Invert line integrals [A, T] by filtered back-projection: an image [H, W]."""
    t = _bins(size)
    n = np.subtract.outer(np.arange(len(t)), np.arange(len(t)))
    odd = np.where(n % 2, n, 1)
    ramp = np.where(n == 0, 0.25, np.where(n % 2, -1.0 / (np.pi * odd) ** 2, 0.0))
    filtered = jnp.matmul(sinogram, jnp.float32(ramp), precision="highest")
    grid = jnp.arange(size) - (size - 1) / 2

    def add_view(image, view):
        row, cos, sin = view
        where = cos * grid + sin * grid[:, None] - t[0]
        return image + map_coordinates(row, [where], order=1), None

    image = jnp.zeros((size, size), sinogram.dtype)
    image, _ = jax.lax.scan(add_view, image, (filtered, *_angles(size)))
    return image * np.pi / len(sinogram)
