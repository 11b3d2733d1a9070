"""Image sets in folders of pictures: PNG, JPEG, TIFF and BMP, grey or RGB.

One sub-folder a group, `<group>/*.png`, with `<group>_masks/<same name>.png` and
likewise `<group>_eligible` and `<group>_body` where they are known.
Or one folder of pictures of which nothing is known, or one picture. Grey values, up to
255 or in 16-bit files up to 65535, become (grey - offset) / scale.
"""

from klip_jax.data.base import REGIONS, ImageSet, data_root
from klip_jax.data.base_join import join
from klip_jax.data.base_pictures import named_like, picture_set, pictures
from klip_jax.data.transforms import Greys


def load(
    *,
    folder: str,
    root: str = "",
    groups: tuple[str, ...] = (),
    per_group: int = 0,
    offset: float = 0.0,
    scale: float = 255.0,
    clip: bool = False,
    label: int = 0,
) -> ImageSet:
    """Read an image set; images come in natural order of their names (2 before 10).

    Args:
      folder: below `root`, or absolute; or one picture.
      root: folder; default $KLIP_DATA, else ../shared/data.
      groups: sub-folders to read, "id" for in-distribution; empty reads the pictures of
        `folder` itself as one group "", unknown.
      per_group: first so many images of each group; 0 for all.
      offset, scale, clip: grey values that become 0, and the range that becomes 1,
        65535 for the whole range of 16-bit files; see `transforms.Greys`.
      label: the value of the anomaly in masks that are labels; 0 where they are not.

    Returns:
      An `ImageSet` with images [N, H, W, C] in [0, 1]; files are read when asked for.

    Raises:
      FileNotFoundError: if the folder is absent.
      ValueError: if a group or a mask is absent, or a file's header says that it is no
        such picture, of another size or depth, or too large for Pillow's limit against
        decompression bombs; when it is read, also if it is truncated or pixels fall
        outside [0, 1].
    """
    path = data_root(root) / folder
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such folder; set --config.data.root or the environment "
            "variable KLIP_DATA to the folder that holds it"
        )
    greys = Greys(offset, scale, clip)
    if not groups:
        return picture_set(pictures(path, per_group), "", greys)
    known = sorted(p.name for p in path.iterdir() if p.is_dir())
    if missing := [group for group in groups if group not in known]:
        raise ValueError(f"{path}: no group {missing[0]!r}; it has {known}")
    return join([_group(path / g, per_group, greys, label) for g in groups])


def _group(path, per_group, greys, label):
    files, regions = pictures(path, per_group), {}
    for name in REGIONS:
        place = path.with_name(f"{path.name}_{name}")
        if place.is_dir():
            regions[name] = [named_like(place, file) for file in files]
    return picture_set(
        files,
        path.name,
        greys,
        prefix=f"{path.name}_",
        regions=regions,
        label=label,
        patients=True,
    )
