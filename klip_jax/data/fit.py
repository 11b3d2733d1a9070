"""Images of any reader at the size that a network takes: cut, resized, padded.

    data=dict(
        name="fit.load",
        data=dict(name="nifti.load", file="brain.nii.gz", percentile=99.5),
        resize=(128,),  # the long side, in proportion
        pad=(128, 128),
    )

In this order, each only where it is set. Maps come back at the input's size (`Fit`), a
padded pixel is never eligible nor body, and the spacing is that of the new pixels.
"""

import dataclasses
import math

import numpy as np

from klip_jax.data.base import REGIONS, Images, ImageSet
from klip_jax.data.base_geometry import PADDINGS, Fit

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's "L"
_MOST = 2**14
"""Pixels along a side at most, so that a slip of a digit does not fill the memory."""


def load(
    *,
    data: ImageSet,
    crop: tuple[int, ...] = (),
    resize: tuple[int, ...] = (),
    pad: tuple[int, ...] = (),
    padding: str = "edge",
    channels: int = 0,
) -> ImageSet:
    """Return the images of `data` at another size.

    Args:
      data: a set, in a config dict(name=..., ...) of a reader.
      crop: (height, width) of the middle that is kept, or (top, left, height, width) of
        a box, pixels of the input.
      resize: (height, width), or (n,) for the long side, the other in proportion; an
        antialiased bilinear filter.
      pad: (height, width) to fill up to, the image in the middle, or (n,) for the next
        multiples of n: 2^k for a network that halves k times, times the block of the
        map.
      padding: what padded pixels show: "edge", "reflect" or "zero".
      channels: 1 makes grey of RGB (BT.601), 3 shows grey in all three; 0 leaves them.

    Raises:
      ValueError: if a setting cannot be, or the image does not fit into it.
    """
    if not isinstance(data, ImageSet):
        raise ValueError(
            f"data.data is a {type(data).__name__}, not an ImageSet; give "
            "dict(name=..., ...) of a reader"
        )
    if data.fits is not None:
        raise ValueError("data.data was fitted already; give all sizes in one fit.load")
    if channels not in (0, 1, 3):
        raise ValueError(f"data.channels={channels}: 1 for grey, 3 for RGB, 0 as it is")
    fit = plan(data.shape[:2], crop=crop, resize=resize, pad=pad, padding=padding)
    last = data.shape[2] if channels in (0, data.shape[2]) else channels
    if {data.shape[2], last} not in ({1, 3}, {last}):
        raise ValueError(
            f"data.channels={channels}: the images have {data.shape[2]} channels; only "
            "RGB becomes grey, and grey RGB"
        )
    named = {*data.regions, "eligible"} if fit.pads else set(data.regions)
    regions = tuple(name for name in REGIONS if name in named)

    def reader(index):
        read = data.read(index)
        images = fit.images(_in_channels(read.images, last))
        known = {
            name: fit.regions(getattr(read, name))
            for name in data.regions
            if getattr(read, name) is not None
        }
        if fit.pads and "eligible" not in known:
            shape = len(index), *fit.shape
            known["eligible"] = np.broadcast_to(fit.inside, shape).copy()
        return Images(np.clip(images, 0, 1), **known)

    return dataclasses.replace(
        data,
        shape=(*fit.shape, last),
        reader=reader,
        regions=regions,
        spacing=fit.spacing(data.spacing),
        fits=(fit,) * len(data),
        before=data.input_of,
    )


def plan(
    source: tuple[int, ...],
    *,
    crop: tuple[int, ...] = (),
    resize: tuple[int, ...] = (),
    pad: tuple[int, ...] = (),
    padding: str = "edge",
) -> Fit:
    """Return the `Fit` of inputs [H, W]; arguments as of `load`.

    Raises:
      ValueError: if a setting cannot be, or the image does not fit into it.
    """
    height, width = source
    for name, value, lengths in (
        ("crop", crop, (0, 2, 4)),
        ("resize", resize, (0, 1, 2)),
        ("pad", pad, (0, 1, 2)),
    ):
        whole = all(isinstance(n, int) and 0 <= n <= _MOST for n in value)
        if len(value) not in lengths or not whole or 0 in value[-2:]:
            counts = " or ".join(str(n) for n in lengths if n)
            raise ValueError(
                f"data.{name}={tuple(value)}: give {counts} whole numbers of pixels, "
                f"at most {_MOST}"
            )
    if padding not in PADDINGS:
        raise ValueError(f"data.padding={padding!r}: give one of {', '.join(PADDINGS)}")
    box = (0, 0, height, width)
    if len(crop) == 2:
        box = ((height - crop[0]) // 2, (width - crop[1]) // 2, *crop)
    elif crop:
        box = tuple(crop)  # type: ignore[assignment]
    top, left, tall, wide = box
    if min(top, left) < 0 or top + tall > height or left + wide > width:
        raise ValueError(
            f"data.crop={tuple(crop)}: does not lie in images of {height}x{width}; pad "
            "where they shall grow"
        )
    if len(resize) == 2:
        resized = (resize[0], resize[1])
    elif resize:
        longest = max(tall, wide)
        resized = (_share(tall, longest, resize[0]), _share(wide, longest, resize[0]))
    else:
        resized = (tall, wide)
    shape = resized
    if len(pad) == 2:
        shape = (pad[0], pad[1])
    elif pad:
        shape = tuple(math.ceil(n / pad[0]) * pad[0] for n in resized)  # type: ignore[assignment]
    if shape[0] < resized[0] or shape[1] < resized[1]:
        raise ValueError(
            f"data.pad={tuple(pad)}: smaller than the images, {resized[0]}x"
            f"{resized[1]}; set data.crop or data.resize too"
        )
    corner = ((shape[0] - resized[0]) // 2, (shape[1] - resized[1]) // 2)
    return Fit((height, width), box, resized, corner, shape, padding)


def _share(side, longest, most):
    return max(1, round(side * most / longest))


def _in_channels(images, last):
    if images.shape[-1] == last:
        return images
    if last == 1:
        return (images @ _LUMA)[..., None]
    return np.repeat(images, last, axis=-1)
