"""One category in the layout of MVTec AD; converters write VisA and others in it too.

    <folder>/train/good/*.png, test/good/*.png, test/<defect>/*.png,
    ground_truth/<defect>/<name>_mask.png

`good` is in-distribution, each defect a group of its own name.

Reference: Bergmann et al. 2019, "MVTec AD".
"""

from klip_jax.data.base import ImageSet, data_root
from klip_jax.data.base_join import join
from klip_jax.data.base_pictures import named_like, picture_set, pictures
from klip_jax.data.transforms import Greys


def load(
    *,
    folder: str,
    root: str = "",
    split: str = "test",
    groups: tuple[str, ...] = (),
    per_group: int = 0,
    offset: float = 0.0,
    scale: float = 255.0,
    clip: bool = False,
    label: int = 0,
) -> ImageSet:
    """Read a category.

    Args:
      folder: of the category, below `root`, or absolute.
      root: folder; default $KLIP_DATA, else ../shared/data.
      split: "train", which is good, or "test".
      groups: which of its sub-folders, "good" among them; empty for all.
      per_group, offset, scale, clip, label: as of `folder.load`.

    Returns:
      An `ImageSet`; with masks where any defect has them.

    Raises:
      FileNotFoundError: if the folder has no such split.
      ValueError: if a group or mask is absent, or a picture broken or unlike others.
    """
    top = data_root(root) / folder
    path = top / split
    if split not in ("train", "test") or not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; give the category with data.folder, and "
            "data.split='train' or 'test'"
        )
    known = sorted(p.name for p in path.iterdir() if p.is_dir())
    if missing := [group for group in groups if group not in known]:
        raise ValueError(f"{path}: no group {missing[0]!r}; it has {known}")
    greys, truth = Greys(offset, scale, clip), top / "ground_truth"
    parts = []
    for name in groups or known:
        files, regions = pictures(path / name, per_group), {}
        if name != "good" and truth.is_dir():
            regions["masks"] = [named_like(truth / name, file) for file in files]
        group = "id" if name == "good" else name
        own = picture_set(
            files,
            group,
            greys,
            prefix=f"{name}_",
            regions=regions,
            label=label,
            patients=True,
        )
        parts.append(own)
    return join(parts)
