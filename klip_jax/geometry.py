"""Which convention of computed tomography fits a sinogram, if the configured does not.

Programs differ in where the axis of rotation is, where the first angle is and which way
the gantry turns. Most of these give the sinogram of another plausible image (a turned,
flipped or shifted one), so the data alone do not tell: the prior does. Each convention
is tried by a short posterior, and told by its misfit, 1 where all is right:

    1. on as many views as `FEW_ROWS` allows, with `FEW` draws and levels;
    2. on all views (`MOST_ROWS`), those within `CLOSE` of the best of stage 1, unless
       that had all views.

Settings of other programs: docs/scanners.md.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from klip_jax import config, rooms
from klip_jax.operators.base import Operator
from klip_jax.operators.base_ct import Beam
from klip_jax.posterior import PosteriorSampler
from klip_jax.types import PRNGKey, Scan

FEW_ROWS, MOST_ROWS, ENTRIES = 1100, 2304, 2**26
"""Rows of A in stages 1 and 2, as A A^T is diagonalised; and entries of A at most."""
LEAST_VIEWS = 6
FEW = dict(samples=2, steps=12)
MORE = dict(samples=2, steps=20)
CLOSE = 1.25
SPOKEN = 1.2
"""A misfit above this asks for a hint; the right geometry has 1.07 to 1.10."""
BETTER = 0.9
"""A convention is named if its misfit is below this share of the configured one's."""


class Convention(NamedTuple):
    """A way to measure.

    Attributes:
      words: what it is called.
      settings: of the operator, those that it changes.
      signed: whether images of [-1, 1] were measured: y = A (2 x - 1).
    """

    words: str
    settings: dict[str, Any]
    signed: bool = False


class Fit(NamedTuple):
    """How well a convention fits one sinogram; 1 is right."""

    convention: Convention
    misfit: float


def conventions(
    settings: Mapping[str, Any], shape: tuple[int, ...], detectors: int
) -> tuple[Convention, ...]:
    """Return what is tried, the configured geometry first.

    Args:
      settings: of the operator, as in a config: dict(name="ct.ParallelBeam", ...).
      shape: (H, W, 1) of the image.
      detectors: number of bins.

    Returns:
      Conventions, whose settings replace those of the operator.
    """
    start, direction = settings.get("start", 0.0), settings.get("direction", 1)
    offset = settings.get("detector_offset", 0.0)
    right, up = settings.get("rotation_centre", (0.0, 0.0))
    listed = settings.get("angles")
    if listed is None:
        views = settings.get("views", 24)
        span = settings.get("span", 360.0 if "fan" in settings["name"] else 180.0)
        step = span / max(1, views - bool(settings.get("endpoint", False)))
    else:
        step = float(np.median(np.diff(listed))) if len(listed) > 1 else 0.0

    half: dict[str, Any] = dict(start=start + direction * step / 2)
    other: dict[str, Any] = dict(direction=-direction)
    turned = [
        (f"first angle {turn:+g} degrees", dict(start=start + turn))
        for turn in (90.0, -90.0, 180.0)
    ]
    simple = [("views half a step later", half), ("angles negated", other), *turned]
    if listed is None and views > 1 and not settings.get("endpoint", False):
        simple.append(("endpoint included", dict(endpoint=True)))
    if listed is None:
        simple.append(
            (f"views over {540 - span:g} degrees", dict(span=540 - span))
            if span in (180.0, 360.0)
            else ("views over 180 degrees", dict(span=180.0))
        )
    height, width, _ = shape
    # The pixel of index n // 2 is on the axis, and is seen by the bin of that index.
    axis: dict[str, Any] = {}
    if height % 2 == 0 or width % 2 == 0:
        pixel = (0.0 if width % 2 else 0.5, 0.0 if height % 2 else -0.5)
        axis["rotation_centre"] = (right + pixel[0], up + pixel[1])
    if detectors % 2 == 0:
        axis["detector_offset"] = offset + 0.5
    both = [(f"{words}, clockwise", {**change, **other}) for words, change in turned]
    if axis:
        name = "scikit-image, axis through the pixel of index n // 2"
        both.append((name, axis))
        both += [(f"{name}, {words}", {**axis, **change}) for words, change in simple]
    bins = [
        (f"detector shifted by {shift:+g} bin", dict(detector_offset=offset + shift))
        for shift in (1.0, -1.0, 0.5, -0.5)
    ]
    return (
        Convention("as configured", {}),
        *(Convention(*pair) for pair in (*simple, *bins, *both)),
        Convention("images of [-1, 1]; give (y + A 1) / 2, half the noise", {}, True),
    )


def fits(
    key: PRNGKey,
    y: Float[np.ndarray, "n views detectors"],
    settings: Mapping[str, Any],
    shape: tuple[int, ...],
    noise_std: float,
    prior: Any,
    posterior: PosteriorSampler,
) -> list[list[Fit]]:
    """Try the conventions on sinograms; one list each, the best first.

    Args:
      key: of the posteriors.
      y: sinograms, all of one geometry's shape.
      settings: of the operator as it is configured.
      shape: (H, W, 1) of the image.
      noise_std: of y, pixel lengths.
      prior: a denoiser.
      posterior: sampler, guidance and levels; its draws and steps are not used.

    Returns:
      For each sinogram the conventions of stage 2; the configured one is always there.
      Empty lists if the operator is not of CT, or too large to be tried.
    """
    listed = conventions(settings, shape, y.shape[-1]) if _tried(settings) else ()
    sizes = y.shape[1:], math.prod(shape)
    whole = _every(*sizes, MOST_ROWS)
    if not listed or whole is None:
        return [[] for _ in y]

    def misfits(chosen: Iterable[Convention], rows: int, draws) -> np.ndarray:
        few = dataclasses.replace(posterior, **draws)
        every = _every(*sizes, rows) or whole
        table = []
        for convention in chosen:
            op = _measured(settings, convention, shape, y.shape[-1], every)
            seen = y[:, ::every].reshape(len(y), -1)
            noise = jnp.float32(noise_std / 2 if convention.signed else noise_std)
            if convention.signed:
                seen = (seen + np.asarray(op(jnp.ones(shape)))) / 2
            table.append(_misfits(key, few, op, jnp.asarray(seen), noise, prior))
        return np.asarray(table)

    table, left = misfits(listed, FEW_ROWS, FEW), list(listed)
    if _every(*sizes, FEW_ROWS) != whole:
        near = table <= CLOSE * np.nanmin(table, axis=0)
        near[0] = True
        left = [c for c, close in zip(listed, near.any(1), strict=True) if close]
        table = misfits(left, MOST_ROWS, MORE)
    return [
        sorted(map(Fit, left, column.tolist()), key=lambda fit: fit.misfit)
        for column in table.T
    ]


def hint(tried: list[Fit]) -> str:
    """Say which convention fits better than the configured one; "" if none does."""
    if not tried:
        return ""
    best = min(tried, key=lambda fit: fit.misfit)
    (own,) = (f.misfit for f in tried if f.convention.words == "as configured")
    if not (own > SPOKEN and best.misfit < BETTER * own):
        return ""
    said = f"misfit {own:.2f} as configured, {best.misfit:.2f} with "
    said += best.convention.words
    if best.convention.settings:
        changes = best.convention.settings.items()
        said += f" ({', '.join(f'{name}={value}' for name, value in changes)})"
    return said


class _Rows(Operator):
    """Some rows of a matrix, whose A A^T is diagonalised: one program for all."""

    def __init__(self, matrix: np.ndarray, shape: tuple[int, ...]):
        power, basis = np.linalg.eigh(matrix @ matrix.T)
        self.matrix, self.basis = jnp.asarray(matrix), jnp.asarray(basis)
        self.power = jnp.asarray(np.maximum(power, 0))
        self.in_shape, self.out_shape = tuple(shape), matrix.shape[:1]

    def __call__(self, x):
        return jnp.matmul(self.matrix, x.ravel()[:, None], precision="highest")[:, 0]

    def solve_gram(self, r, variance, noise_var):
        c = jnp.matmul(r, self.basis, precision="highest")
        c = c / (variance * self.power + noise_var)
        return jnp.matmul(self.basis, c[:, None], precision="highest")[:, 0]


@jax.jit
def _misfits(key, posterior, operator, y, noise_std, prior):
    return jax.vmap(
        lambda seen: posterior(key, Scan(operator, seen, noise_std), prior).misfit
    )(y)


def _tried(settings: Mapping[str, Any]) -> bool:
    kind = rooms.resolve("operators", settings["name"])
    return isinstance(kind, type) and issubclass(kind, Beam)


def _every(seen: tuple[int, ...], pixels: int, rows: int) -> int | None:
    """Return k such that every k-th view is used; None if too few can be."""
    views, detectors = seen
    most = min(rows, ENTRIES // pixels) // detectors
    if most < min(LEAST_VIEWS, views):
        return None
    return math.ceil(views / most)


def _measured(settings, convention, shape, detectors, every) -> _Rows:
    """Build the rows of every k-th view under a convention."""
    changed = {**settings, **convention.settings, "detectors": detectors}
    # Neither the whole matrix nor its eigenvectors are needed.
    beam = config.build("operators", changed | {"dense": False}, shape)
    return _Rows(beam.rows(every), shape)
