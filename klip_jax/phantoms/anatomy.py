"""Procedural abdominal CT slices in Hounsfield units: every key is a new anatomy.

An anatomy is the table of `atlas`, jittered and painted back to front. A structure k
with signed distance d_k (pixels, negative inside) fills c_k = clip(1/2 - d_k, 0, 1) of
a pixel, which is the box-filtered edge, and

    hu <- hu + c_k * (value_k - hu),      value_k = mean_k + sd_k * texture_k.

Distances are of first order, d = g / |grad g| where the outline is g = 0, taken in
coordinates that are shifted, rotated, mirrored and bent by a few plane waves, so that
nothing is aligned to pixels. The patient lies on the back: y is down, gas rises.

Reference: Shepp and Logan 1974 for phantoms as tables of ellipses; HU after Bushberg et
al., The Essential Physics of Medical Imaging, 3rd edition, chapter 10.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from klip_jax.phantoms import atlas, shapes


class Phantom(NamedTuple):
    """One anatomy.

    Attributes:
      hu: attenuation [H, W], HU.
      body: True inside the skin [H, W].
      eligible: True where a lesion may be centred [H, W]: organs and muscle, at least
        one pixel away from bone, gas and the outside.
      labels: the tissue painted last over a pixel's centre [H, W], int32, a key of
        `atlas.TISSUES`.
      kidneys: share of each pixel that each kidney fills, its sinus included
        [2, H, W], in [0, 1].
      behind: attenuation with both kidneys taken out [H, W], HU: fat.
    """

    hu: Array
    body: Array
    eligible: Array
    labels: Array
    kidneys: Array
    behind: Array


def window(hu: Array) -> Array:
    """Map attenuation to the range of images.

    clip((hu + 160) / 400, 0, 1): the soft-tissue window from -160 to 240 HU.

    Args:
      hu: attenuation [H, W], HU.

    Returns:
      Image [H, W, 1] in [0, 1].
    """
    return jnp.clip((hu + 160.0) / 400.0, 0.0, 1.0)[..., None]


def phantom(key: Array, size: int = 64) -> Phantom:
    """Draw an abdominal slice at the level of the kidneys.

    At 64 pixels the body's half width is uniform in 22.5-28.5 pixels and its half
    height .68-.84 of it; the centre moves by 2.5 pixels and turns by 8 degrees either
    way; half of the slices are mirrored, half have contrast agent of a uniform dose.
    Lengths scale with `size`; the width of edges (one pixel) and the correlation length
    of texture (one to three) are those of the pixel grid at any size.

    Args:
      key: PRNG key; the anatomy is a function of it alone.
      size: pixels along each side, static, >= 32.

    Returns:
      A `Phantom` of arrays [size, size].

    Raises:
      ValueError: if size < 32.
    """
    if size < 32:
        raise ValueError(
            f"size is {size} but must be >= 32, or structures fall between pixels: "
            "draw a larger phantom and average"
        )
    key_body, key_table, key_tissue, key_texture = jax.random.split(key, 4)
    u = iter(jax.random.uniform(key_body, (11,)))

    def between(low, high):
        return low + (high - low) * next(u)

    # Coordinates in pixels, in the patient's frame.
    px = size / 64.0
    half_width = between(22.5, 28.5) * px
    half_height = half_width * between(0.68, 0.84)
    turn = between(-0.14, 0.14)
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    mirror = jnp.where(next(u) < 0.5, -1.0, 1.0)
    grid = jnp.arange(size) - (size - 1) / 2
    column = grid - between(-2.5, 2.5) * px
    row = (grid - between(-2.5, 2.5) * px)[:, None]
    bend = 0.35 * px * _bend(jax.random.fold_in(key_body, 1), column / px, row / px)
    x = mirror * (cos * column + sin * row) + bend[0]
    y = cos * row - sin * column + bend[1]

    # Tissues of this patient.
    fine, coarse, wobble = _textures(key_texture, size)
    agent = jnp.maximum(0.0, between(-1.0, 1.0))
    spread = jax.random.uniform(key_tissue, (len(atlas.TISSUES),), minval=-1.0)

    rows = np.array([atlas.TISSUES[k] for k in range(len(spread))], np.float32)
    t = atlas.Tissue(*rows.T)
    mean = t.mean + t.jitter * spread + t.gain * agent
    sharp, soft = t.sd * np.sqrt(1.0 - t.coarse), t.sd * np.sqrt(t.coarse)

    def value(tissue, offset=0.0):
        texture = sharp[tissue] * fine + soft[tissue] * coarse
        return mean[tissue] + offset + texture

    # Skin, fat, wall, and the cavity with strands in its fat.
    fat, wall = between(1.3, 4.5) * px, between(1.8, 3.0) * px
    shape = between(1.2, 2.0)
    groove = 1.2 * px * jnp.exp(-((x / (3 * px)) ** 2)) * (y > 0)
    body = shapes.trunk_distance(x, y + groove, half_width, half_height, shape)
    a, b = half_width - fat - wall, half_height - 0.9 * fat - wall
    y_wall = y + 0.05 * half_height
    cavity = shapes.trunk_distance(x, y_wall, a, b, shape) + 0.3 * wobble
    flank = shapes.trunk_distance(x, y_wall, a + wall, b + wall, shape)
    inside = cavity + 0.9 * px  # organs end here: a film of fat lines the wall
    strands = 80.0 * jnp.clip(wobble - 0.7, 0.0, 1.2)
    canvas = jnp.full((size, size), -1000.0), jnp.full((size, size), atlas.AIR)
    canvas = _paint(canvas, body, atlas.SKIN, value(atlas.SKIN))
    canvas = _paint(canvas, body + 0.9, atlas.FAT, value(atlas.FAT))
    canvas = _paint(canvas, flank, atlas.MUSCLE, value(atlas.MUSCLE))
    canvas = _paint(canvas, cavity, atlas.FAT, value(atlas.FAT) + strands)

    # The table, {name: distances [K, H, W]}.
    level = between(-1.0, 1.0)
    units = (a + wall) / 0.9, half_height, jnp.sqrt(half_width * half_height)
    placed = atlas.place(key_table, units, level)

    @jax.vmap
    def distances(e):
        return shapes.ellipse_distance(x - e.x, y - e.y, e.a, e.b, e.angle)

    distance = {name: distances(e) for name, (e, _) in placed.items()}

    # Organs.
    back = shapes.union(distance["back"]) + 0.4 * wobble
    canvas = _paint(canvas, back, atlas.MUSCLE, value(atlas.MUSCLE))
    liver = jnp.maximum(shapes.union(distance["liver"]) + 0.5 * wobble, inside)
    canvas = _paint(canvas, liver, atlas.LIVER, value(atlas.LIVER))
    veins = jnp.maximum(shapes.union(distance["liver_vessels"]), liver + px)
    canvas = _paint(canvas, veins, atlas.BLOOD, value(atlas.BLOOD, 25.0 * agent - 15.0))
    loops, free = placed["gut"]
    for k, loop in enumerate(distance["gut"]):
        loop = jnp.maximum(loop + 0.4 * wobble, inside)
        lumen = loop + (1.0 + 0.4 * free[k, 0]) * px
        content = value(atlas.CONTENT, 40.0 * free[k, 1])
        centre = sin * mirror * loops.x[k] + cos * loops.y[k]
        surface = centre - loops.b[k] * (0.6 + 0.9 * free[k, 2])
        gas = jnp.maximum(lumen, row - surface)
        canvas = _paint(canvas, loop, atlas.BOWEL, value(atlas.BOWEL))
        canvas = _paint(canvas, lumen, atlas.CONTENT, content)
        canvas = _paint(canvas, gas, atlas.GAS, value(atlas.GAS))
    for name, tissue in (
        ("spleen", atlas.SPLEEN),
        ("pancreas", atlas.PANCREAS),
        ("gallbladder", atlas.BILE),
        ("vessels", atlas.BLOOD),
    ):
        organ = jnp.maximum(shapes.union(distance[name]) + 0.3 * wobble, inside)
        canvas = _paint(canvas, organ, tissue, value(tissue))

    # Bone.
    band = jnp.abs(flank + 0.5 * wall) - 0.7 * px
    ribs = jnp.maximum(shapes.union(distance["ribs"]), band)
    vertebra = distance["vertebra"][0]
    bone = jnp.minimum(ribs, jnp.minimum(vertebra, shapes.union(distance["arch"])))
    canvas = _paint(canvas, bone, atlas.BONE, value(atlas.BONE))
    canvas = _paint(canvas, vertebra + 1.1 * px, atlas.MARROW, value(atlas.MARROW))
    canvas = _paint(canvas, distance["canal"][0], atlas.CANAL, value(atlas.CANAL))

    # Kidneys last, in a capsule of fat, so that what is behind them is known.
    kidneys = jnp.maximum(distance["kidneys"] + 0.3 * wobble, inside + 0.6)
    capsule = jnp.maximum(shapes.union(kidneys) - 1.6 * px, cavity)
    canvas = _paint(canvas, capsule, atlas.FAT, value(atlas.FAT))
    behind, _ = canvas
    e, _ = placed["kidneys"]
    medial = jnp.array([0.7, -0.7]) * e.a
    hilum = e._replace(x=e.x + medial, y=e.y - 0.2 * e.b, a=0.6 * e.a, b=0.42 * e.b)
    sinus = shapes.union(distances(hilum))
    kidney = shapes.union(kidneys)
    canvas = _paint(canvas, kidney, atlas.KIDNEY, value(atlas.KIDNEY))
    sinus = jnp.maximum(sinus, kidney)
    hu, labels = _paint(canvas, sinus, atlas.FAT, value(atlas.FAT, 45.0))

    organs = functools.reduce(jnp.logical_or, [labels == k for k in atlas.ORGANS])
    return Phantom(
        hu=hu,
        body=body < 0.0,
        eligible=organs & clear(labels),
        labels=labels,
        kidneys=shapes.coverage(kidneys),
        behind=behind,
    )


def clear(labels: Array) -> Array:
    """Find the pixels whose 3 x 3 neighbourhood holds no bone, gas or outside.

    Args:
      labels: tissues [H, W], keys of `atlas.TISSUES`.

    Returns:
      Boolean mask [H, W].
    """
    height, width = labels.shape
    bad = jnp.pad(labels <= atlas.MARROW, 1, constant_values=True)
    # Counted by products: of shifted copies, XLA paints each of the nine anew.
    rows = sum(np.eye(height, height + 2, k) for k in range(3))
    columns = sum(np.eye(width + 2, width, -k) for k in range(3))
    count = jnp.float32(rows) @ bad.astype(jnp.float32) @ jnp.float32(columns)
    return count == 0.0


def _paint(canvas, distance, tissue, value):
    """Paint `value` over (hu, labels) where `distance` < 0."""
    hu, labels = canvas
    hu = hu + shapes.coverage(distance) * (value - hu)
    return hu, labels + (distance < 0.0) * (tissue - labels)


def _bend(key, column, row):
    """Sum of four plane waves of unit amplitude along each axis [2, H, W].

    sin(a x + b y) by the addition theorem, as a product of rows and columns.
    """
    key_wave, key_phase = jax.random.split(key)
    k = jax.random.uniform(key_wave, (2, 2, 4), minval=-0.22, maxval=0.22)
    phase = jax.random.uniform(key_phase, (2, 4, 1), maxval=2 * jnp.pi)
    along = k[:, 0, :, None] * column + phase  # [2, 4, W]
    down = k[:, 1, :, None] * row[:, 0]  # [2, 4, H]
    waves = jnp.concatenate([jnp.cos(down), jnp.sin(down)], 1)
    return jnp.einsum(
        "akh,akw->ahw",
        waves,
        jnp.concatenate([jnp.sin(along), jnp.cos(along)], 1),
        precision="highest",
    )


def _textures(key, size):
    """Three unit-variance noises [H, W], correlated over about 1, 2 and 3 pixels."""
    white = jax.random.normal(key, (2, size, size))
    return (
        _smooth(white[0], (1.0, 0.4)),
        _smooth(white[1], (1.0, 0.7, 0.25)),
        _smooth(white[1], (1.0, 0.9, 0.6, 0.3)),
    )


def _smooth(noise, taps):
    """Convolve with (.., taps[1], taps[0], taps[1], ..), periodically; keep the power.

    As products with a circulant: several times faster on a CPU than sums of shifts.
    """
    eye = np.eye(len(noise), dtype=np.float32)
    shifts = range(1 - len(taps), len(taps))
    blur = sum(taps[abs(i)] * np.roll(eye, i, 0) for i in shifts)
    blur /= np.linalg.norm(blur[0])
    return jnp.linalg.multi_dot([blur, noise, blur], precision="highest")
