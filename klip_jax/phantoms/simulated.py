"""Anomalies simulated in real images, to choose settings and to train a bound on.

Each is (key, image, eligible, kind) -> (image, mask); `base_simulated` says what they
look like, `blobs` and `lines` make them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from klip_jax.data import npz
from klip_jax.data.base import ImageSet, in_memory
from klip_jax.data.base_join import join
from klip_jax.phantoms.base_simulated import DEFAULT, Kind, tissue
from klip_jax.phantoms.blobs import grating, lesion
from klip_jax.phantoms.lines import bad_views, stroke

KINDS = {
    "lesion": lesion,
    "grating": grating,
    "stroke": stroke,
    "bad_views": bad_views,
}


def load(
    *,
    file: str,
    greys: tuple[float, float],
    groups: tuple[str, ...] = ("lesion",),
    per_group: int = 50,
    seed: int = 0,
    contrast: tuple[float, float] = DEFAULT.contrast,
    radius: tuple[float, float] = DEFAULT.radius,
    split: str = "train",
    part: tuple[float, float] = (0.0, 1.0),
    root: str = "",
    offset: float = 0.0,
    scale: float = 255.0,
    shrink: int = 1,
    healthy: str = "",
    oval: tuple[float, ...] = (),
) -> ImageSet:
    """Read images and put an anomaly into all but the first `per_group`.

    Args:
      file, split, part, root, offset, scale, shrink, healthy, oval: of `npz.load`.
      greys: of the tissue that may hold one, inside the oval if there is one; images
        with fewer than 30 such pixels are passed over.
      groups: names in `KINDS`; the group "id" comes before them.
      per_group: images of each group; no image is in two.
      seed: of the choice of images and of the anomalies.
      contrast, radius: of `Kind`.

    Returns:
      An `ImageSet` with masks and eligible tissue.

    Raises:
      ValueError: if there are too few images or a group is unknown; and as `npz.load`.
    """
    for group in groups:
        if group not in KINDS:
            raise ValueError(f"data.groups: no {group!r}; choose of {sorted(KINDS)}")
    known = npz.load(
        file=file,
        split=split,
        part=part,
        root=root,
        healthy=healthy,
        offset=offset,
        scale=scale,
        shrink=shrink,
        oval=oval,
    )
    eligible = np.asarray(jax.vmap(lambda x: tissue(x, greys))(known.images))
    eligible = eligible & (True if known.eligible is None else known.eligible)
    fit = np.flatnonzero(eligible.sum((1, 2)) >= 30)
    count = (1 + len(groups)) * per_group
    if len(fit) < count:
        raise ValueError(
            f"data.per_group={per_group}: needs {count} images with tissue of "
            f"greys {greys}, there are {len(fit)}"
        )
    chosen = np.random.default_rng(seed).permutation(fit)[:count]
    kind = Kind(contrast=contrast, radius=radius)
    parts = []
    for i, index in enumerate(np.split(chosen, 1 + len(groups))):
        group = groups[i - 1] if i else "id"
        own = known.take(index)
        images, masks = own.images, np.zeros(eligible[index].shape, bool)
        if i:
            keys = jax.random.split(jax.random.key(seed + i - 1), per_group)
            put = jax.vmap(KINDS[group], (0, 0, 0, None))
            where = jnp.asarray(eligible[index])
            put_in = put(keys, jnp.asarray(images), where, kind)
            images, masks = (np.asarray(array) for array in put_in)
        parts.append(
            in_memory(
                images,
                own.ids,
                (group,) * per_group,
                masks=masks,
                eligible=eligible[index],
                body=own.body,
                patients=own.patients,
            )
        )
    return join(parts)
