"""What goes with trained weights: a card for people, and a look at samples."""

import io
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from klip_jax.prior_predictive import prior_draw
from klip_jax.priors.labelled import Labelled
from klip_jax.types import Denoiser

_COLUMNS = {
    "train": "training images",
    "test": "held-out images",
    "train_labelled": "training, told the class",
    "test_labelled": "held-out, told the class",
}


def prior_card(record: Mapping[str, Any], sha256: str) -> str:
    """Return what the weights of a prior say of themselves, as markdown for people.

    Args:
      record: of the weights.
      sha256: of their file; `hub.load` compares it.
    """
    errors = record["errors"]
    columns = [name for name in _COLUMNS if name in errors]
    head = " | ".join(["sigma", *(_COLUMNS[name] for name in columns)])
    table = "\n".join(
        f"| {sigma:.4g} | "
        + " | ".join(f"{errors[name][i] ** 0.5 / sigma:.3f}" for name in columns)
        + " |"
        for i, sigma in enumerate(errors["levels"])
    )
    return f"""# Weights for {record["image_shape"]} images

{_table(record, sha256, {"prior": record["prior"]})}

Root mean squared denoising error per pixel over sigma, image units:

| {head} |
|{"---|" * (1 + len(columns))}
{table}
"""


def classifier_card(record: Mapping[str, Any], sha256: str) -> str:
    """Return what the weights of a classifier say of themselves, as markdown.

    Args:
      record: of the weights.
      sha256: of their file; `hub.load_classifier` compares it.
    """
    rows = "\n".join(
        f"| {_COLUMNS[name]} | {record['counts'][name]} | {own['accuracy']:.2%} | "
        f"{own['confidence']:.2%} | {own['cross_entropy']:.4f} |"
        for name, own in record["quality"].items()
    )
    return f"""# A classifier of {record["image_shape"]} images

{_table(record, sha256, {})}

Confidence is the mean probability of the class that it names, cross-entropy in nats.
Images are given in [0, 1]; the network normalises them itself.

| | images | accuracy | confidence | cross-entropy |
|---|---|---|---|---|
{rows}
"""


def _table(record, sha256, more):
    last = record["training"]
    stages = [*last["before"], last]
    steps = ", then ".join(f"{s['step']} ({s['images']} images)" for s in stages)
    made_with = last["versions"]
    rows = {
        "data": last["data"],
        "augmentation": last.get("augment", "none"),
        "licence": last["licence"],
        "network": record["net"],
        **more,
        "optimiser steps": steps,
        "last recipe": last["recipe"],
        "started from": stages[0]["init"] or "random weights",
        "device": f"{made_with['device']}, jax {made_with['jax']}",
        "sha256": sha256,
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def sample_grid(prior: Denoiser, shape: tuple[int, ...], *, side: int = 6) -> bytes:
    """Draw images [H, W, C] from the prior; returns a PNG.

    Args:
      prior: of which side^2 are drawn; one that knows classes has a row of each, and
        one more of the null label.
      shape: (H, W, C).
      side: images in a row.
    """
    labels: list[int | None] = [None] * side
    if isinstance(prior, Labelled):
        labels = [*range(prior.classes), prior.classes]

    @jax.jit
    def draw(prior, label, keys):
        own = prior if label is None else prior.given(label)
        return jax.vmap(lambda key: prior_draw(key, own, shape))(keys)

    rows = [
        draw(
            prior,
            None if label is None else jnp.int32(label),
            jax.random.split(jax.random.key(row), side),
        )
        for row, label in enumerate(labels)
    ]
    tiled = np.concatenate([np.concatenate(list(np.asarray(row)), 1) for row in rows])
    greys = np.uint8(np.clip(tiled, 0, 1) * 255).squeeze()
    buffer = io.BytesIO()
    Image.fromarray(greys).save(buffer, "PNG")
    return buffer.getvalue()
