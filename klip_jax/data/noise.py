"""Images that show nothing: noise and blobs, the easiest out-of-distribution sets.

    uniform      x = u,                        u uniform in [0, 1]
    gaussian     x = clip((1 + n) / 2, 0, 1),  n normal of standard deviation 1/2
    rademacher   x = 0 or 1, as likely
    blobs        x = b where b >= 3/4, else 0; b = k * r, r = 1 with probability 0.7,
                 else 0; k a Gaussian of 1.5 pixels, over rows, columns and colours
    smooth       x = clip(1/2 + g / 5, 0, 1),  E|g^(f)|^2 proportional to |f|^-2 and
                 0 for f = 0; g normal, of variance 1 on average, periodic

Every pixel and colour has its own draw; a field g is one a colour, with the spectrum
that photographs have about. All is rounded to 256 greys, as files are, and in no codec.
An image is known by (seed, group, its number) alone: whatever else is made, and on
whatever device.

Reference: Hendrycks, Mazeika, Dietterich, "Deep anomaly detection with outlier
exposure", 2019, appendix A, for gaussian, rademacher and blobs, whose numbers are of
its code, there for [-1, 1].
"""

import hashlib

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from klip_jax.data.base import Images, ImageSet
from klip_jax.data.base_join import join

_BLUR, _KEPT, _EDGE = 1.5, 0.7, 0.75
_SLOPE, _CONTRAST = 2.0, 0.2


def load(
    *,
    groups: tuple[str, ...] = ("uniform", "gaussian", "rademacher", "blobs", "smooth"),
    per_group: int = 100,
    shape: tuple[int, ...] = (32, 32, 3),
    seed: int = 0,
) -> ImageSet:
    """Return `per_group` images of each group, which are made when asked for.

    Args:
      groups: of those above; none is in-distribution.
      per_group: images of each, >= 1; the first ones do not depend on how many follow.
      shape: (H, W, C) of an image, H and W at least 2.
      seed: in [0, 2^32).

    Raises:
      ValueError: if a group is unknown, or a number out of its range.
    """
    if unknown := [group for group in groups if group not in _KINDS]:
        raise ValueError(
            f"data.groups: no noise is called {unknown[0]!r}; there are {list(_KINDS)}"
        )
    if per_group < 1:
        raise ValueError(f"data.per_group={per_group}: at least one image of each")
    if len(shape) != 3 or min(shape[:2]) < 2 or shape[2] < 1:
        raise ValueError(f"data.shape={shape}: give (H, W, C), H and W at least 2")
    if not 0 <= seed < 2**32:
        raise ValueError(f"data.seed={seed}: must be in [0, 2^32)")
    return join([_group(group, per_group, tuple(shape), seed) for group in groups])


def draw(
    group: str, shape: tuple[int, ...], seed: int, number: int
) -> Float[np.ndarray, "h w c"]:
    """Return one image in [0, 1]; arguments as of `load`."""
    name = hashlib.sha256(f"{seed}/{group}/{number}".encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=np.frombuffer(name[:16], np.uint64)))
    image = np.clip(_KINDS[group](rng, shape), 0, 1)
    return (np.round(255 * image) / 255).astype(np.float32)


def _group(group, per_group, shape, seed):
    def reader(index):
        images = np.empty((len(index), *shape), np.float32)
        for k, number in enumerate(index):
            images[k] = draw(group, shape, seed, int(number))
        return Images(images)

    ids = tuple(f"{group}_{i:05d}" for i in range(per_group))
    nothing = (-1,) * per_group
    return ImageSet(
        ids, (group,) * per_group, shape, reader, patients=ids, labels=nothing
    )


def _gaussian(rng, shape):
    return (1 + 0.5 * rng.standard_normal(shape)) / 2


def _blobs(rng, shape):
    dots = (rng.random(shape) < _KEPT).astype(np.float64)
    blurred = gaussian_filter(dots, _BLUR, mode="nearest")
    return np.where(blurred < _EDGE, 0.0, blurred)


def _smooth(rng, shape):
    rows, columns = (np.fft.fftfreq(n) for n in shape[:2])
    frequency = np.hypot(rows[:, None], columns)
    # A mean of zero: no power where the frequency is zero.
    frequency[0, 0] = np.inf
    power = frequency**-_SLOPE
    gain = np.sqrt(power / power.mean())[..., None]
    white = np.fft.fft2(rng.standard_normal(shape), axes=(0, 1))
    return 0.5 + _CONTRAST * np.fft.ifft2(gain * white, axes=(0, 1)).real


_KINDS = {
    "uniform": lambda rng, shape: rng.random(shape),
    "gaussian": _gaussian,
    "rademacher": lambda rng, shape: rng.integers(0, 2, shape).astype(np.float64),
    "blobs": _blobs,
    "smooth": _smooth,
}
