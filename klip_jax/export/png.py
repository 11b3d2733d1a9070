"""Maps as pictures: laid over the input, at its size.

    picture = (1 - a) image + a colour(t),   a = 0.7 t,   t = map / the largest of all

`overlays/<number>_<name>.png`; one scale for all images, so that they can be compared.
"""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from klip_jax.export.finished import Maps, safe

_OPAQUE = 0.7
_COLOURS = "inferno"


def write(maps: Maps, workdir: Path) -> list[Path]:
    """Write the overlays; see the module's docstring."""
    folder, written = workdir / "overlays", []
    folder.mkdir(exist_ok=True)
    most = max((float(np.nanmax(maps.of(i), initial=0)) for i in maps.done), default=0)
    colours = matplotlib.colormaps[_COLOURS]
    for i in maps.done:
        image = maps.images.input_of(i)
        image = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image[..., :3]
        t = np.nan_to_num(np.clip(maps.of(i) / (most or 1), 0, 1))
        opaque = _OPAQUE * t[..., None]
        picture = (1 - opaque) * image + opaque * colours(t)[..., :3]
        target = folder / f"{safe(maps.images.ids[i], i)}.png"
        Image.fromarray(np.uint8(np.round(255 * picture))).save(target)
        written.append(target)
    return written
