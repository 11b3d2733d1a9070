"""What goes with trained weights: a card for people, and a look at samples."""

import io
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image

from klip_jax.prior_predictive import prior_draw
from klip_jax.types import Denoiser


def card(record: Mapping[str, Any], sha256: str) -> str:
    """Return what a weights file's record says, as markdown for people.

    Args:
      record: of the weights.
      sha256: of their file; `hub.load` compares it.
    """
    last, errors = record["training"], record["errors"]
    stages = [*last["before"], last]
    steps = ", then ".join(f"{s['step']} ({s['images']} images)" for s in stages)
    made_with = last["versions"]
    rows = zip(errors["levels"], errors["train"], errors["test"], strict=True)
    table = "\n".join(
        f"| {sigma:.4g} | {train**0.5 / sigma:.3f} | {test**0.5 / sigma:.3f} |"
        for sigma, train, test in rows
    )
    return f"""# Weights for {record["image_shape"]} images

| | |
|---|---|
| data | {last["data"]} |
| augmentation | {last.get("augment", "none")} |
| licence | {last["licence"]} |
| network | {record["net"]} |
| prior | {record["prior"]} |
| optimiser steps | {steps} |
| last recipe | {last["recipe"]} |
| started from | {stages[0]["init"] or "random weights"} |
| device | {made_with["device"]}, jax {made_with["jax"]} |
| sha256 | {sha256} |

Root mean squared denoising error per pixel over sigma, image units:

| sigma | training images | held-out images |
|---|---|---|
{table}
"""


def sample_grid(prior: Denoiser, shape: tuple[int, ...], *, side: int = 6) -> bytes:
    """Draw side^2 images [H, W, C] from the prior; returns a PNG."""

    @jax.jit
    def draw(prior, keys):
        return jax.vmap(lambda key: prior_draw(key, prior, shape))(keys)

    rows = [
        np.asarray(draw(prior, jax.random.split(jax.random.key(row), side)))
        for row in range(side)
    ]
    tiled = np.concatenate([np.concatenate(list(row), 1) for row in rows])
    grey = np.uint8(np.clip(tiled, 0, 1) * 255).squeeze()
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()
