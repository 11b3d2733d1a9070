"""Localization and detection AUROC of a set of maps, as the experiments report them."""

import jax.numpy as jnp
import numpy as np

from klip_jax import bootstrap, localization
from klip_jax.blocks import block_sum, top_mean
from klip_jax.data.base import ImageSet


def aurocs(maps, images: ImageSet, *, block: int = 4, top_share: float = 0.02) -> dict:
    """Return both AUROCs with 95 % bootstrap intervals over images.

    Args:
      maps: one of each image [N, H, W], bigger = more anomalous.
      images: with masks and eligible tissue; the group "id" has no anomaly.
      block, top_share: of `detectors.klip.KLIP`.
    """
    maps = np.asarray(maps)
    ood = np.array(images.groups) != "id"
    scores = image_scores(maps, block=block, top_share=top_share)
    statistics = {
        "localization_auroc": bootstrap.mean_of(localizations(maps, images, block)),
        "detection_auroc": bootstrap.auroc_of(scores, ood),
    }
    return {name: bootstrap.bootstrap(f, images.ids) for name, f in statistics.items()}


def image_scores(maps, *, block: int = 4, top_share: float = 0.02) -> np.ndarray:
    """Return the mean of the largest blocks of each map [N]; arguments of `aurocs`."""
    blocks = block_sum(jnp.asarray(maps), block)
    return np.array([top_mean(b, top_share) for b in blocks])


def localizations(maps, images: ImageSet, block: int = 4) -> np.ndarray:
    """Return the AUROC inside each image [N], NaN where there is none.

    It counts blocks where an anomaly could be, or is.
    """
    if images.masks is None:
        return np.full(len(images), np.nan)
    known = images.eligible
    regions = images.masks if known is None else known | images.masks
    return localization.block_aurocs(np.asarray(maps), images.masks, regions, block)
