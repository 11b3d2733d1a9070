"""Localization and detection AUROC of a set of maps, as the experiments report them."""

import jax.numpy as jnp
import numpy as np

from klip_jax import kl, metrics
from klip_jax.data.base import ImageSet


def aurocs(maps, images: ImageSet, *, block: int = 4, top: float = 0.02) -> dict:
    """Return both AUROCs with 95 % bootstrap intervals over images.

    Args:
      maps: one of each image [N, H, W], bigger = more anomalous.
      images: with masks and eligible tissue; the group "id" has no anomaly.
      block, top: of `klip.Settings`.
    """
    maps = np.asarray(maps)
    ood = np.array(images.groups) != "id"
    scores = image_scores(maps, block=block, top=top)
    regions = images.eligible | images.masks
    triples = zip(maps, images.masks, regions, strict=True)
    inside = np.array([metrics.block_auroc(*triple, block) for triple in triples])
    found = {
        "localization_auroc": metrics.mean_of(inside),
        "detection_auroc": metrics.auroc_of(scores, ood),
    }
    return {name: metrics.bootstrap(f, images.ids) for name, f in found.items()}


def image_scores(maps, *, block: int = 4, top: float = 0.02) -> np.ndarray:
    """Return the mean of the largest blocks of each map [N]; arguments of `aurocs`."""
    blocks = kl.block_sum(jnp.asarray(maps), block)
    return np.array([kl.top_mean(b, top) for b in blocks])
