"""Image sets of several readers as one: pictures of files and noise that is made, say.

    data=dict(
        name="several.load",
        data=dict(
            files=dict(name="npz.load_arrays", groups=dict(...)),
            noise=dict(name="noise.load", groups=("gaussian",), shape=(28, 28, 1)),
        ),
    )

`--config.data.data.noise.per_group=50` changes one of them. A tuple of them does as
well, but has no names for the command line.
"""

from collections.abc import Mapping
from typing import Any

from klip_jax.data.base import ImageSet
from klip_jax.data.base_join import join


def load(*, data: Mapping[str, Any] | tuple[Any, ...]) -> ImageSet:
    """Return the images of all sets of `data`; see `base.join`.

    Args:
      data: sets of one size, no group in two of them: {name: set}, which come in the
        order of their names, as a config has no other, or a tuple.

    Raises:
      ValueError: if there are none, one is no set of images, the sizes differ, or a
        group is in two.
    """
    named = dict(sorted(data.items()) if isinstance(data, Mapping) else enumerate(data))
    if not named:
        raise ValueError("data.data is empty: name at least one set of images")
    owners: dict[str, str] = {}
    for name, images in named.items():
        where = f"data.data.{name}"
        if not isinstance(images, ImageSet):
            raise ValueError(
                f"{where} is a {type(images).__name__}, not an ImageSet; give "
                "dict(name=..., ...) of a reader"
            )
        for group in sorted(set(images.groups)):
            if group in owners:
                raise ValueError(
                    f"the group {group!r} is in {owners[group]} and in {where}; give "
                    "each group once, or another name"
                )
            owners[group] = where
    return join(tuple(named.values()))
