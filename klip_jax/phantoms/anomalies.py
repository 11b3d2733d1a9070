"""Anomalies of abdominal CT with exact masks, and images drawn with them.

Each is (key, Phantom) -> (hu, mask): a lesion, metal, a missing kidney.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from klip_jax.phantoms.anatomy import Phantom, phantom, window
from klip_jax.phantoms.lesion import lesion
from klip_jax.phantoms.metal import metal

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
