"""Sensitivities of receiver coils: from a file, from k-space, or simulated."""

import os
from typing import Any

import numpy as np
from jaxtyping import Complex

from klip_jax.operators.base_espirit import espirit, with_image_phase
from klip_jax.operators.base_kspace import read_array


def loaded(given: Any) -> Any:
    """Return what is given, or the array of the file that it names."""
    return read_array(given) if isinstance(given, str | os.PathLike) else given


def estimated(
    kspace: np.ndarray,
    lines: np.ndarray,
    shape: tuple[int, int],
    centred: bool,
    *,
    real: bool,
) -> Complex[np.ndarray, "coils h w"]:
    """Estimate sensitivities by ESPIRiT from k-space whose central columns are whole.

    Args:
      kspace: complex [coils, H, W], or [coils, H, kept].
      lines: the kept columns, in FFT order, as k-space lists them.
      shape: (H, W).
      centred: whether k-space is.
      real: whether images are real, so that the maps carry the phase.
    """
    kspace = _whole(kspace, lines, shape, centred)
    height, width = shape
    seen = np.asarray(kspace.any((0, 1)))
    below, above = (
        np.argmin([*part, False])
        for part in (seen[: width // 2][::-1], seen[width // 2 :])
    )
    columns = 2 * int(min(below, above)) if width > 1 else 1
    region = min(24, height), min(24, columns)
    maps = espirit(kspace, calibration=region, kernel=min(6, *region))
    if real:
        maps = with_image_phase(maps, kspace)
    # What is centred by its frequencies alone is the image about pixel 0.
    return maps if centred else np.fft.ifftshift(maps, (1, 2))


def simulated(height: int, width: int, coils: int, seed: int) -> np.ndarray:
    """Return smooth complex maps [coils, H, W] whose squares sum to 1.

    Coil c sits at the angle (c + jitter) / coils of the circle through the corners; it
    falls off like a Gaussian with distance, and its phase is linear.
    """
    # The columns are drawn from `seed` too: a stream of its own.
    rng = np.random.default_rng([seed, 1])
    row, column = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    angle = 2 * np.pi * (np.arange(coils) + rng.uniform(-0.25, 0.25, coils)) / coils
    up, right = 2**0.5 * np.stack([np.sin(angle), np.cos(angle)])[:, :, None, None]
    phase, slope_up, slope_right = rng.uniform(-np.pi, np.pi, (3, coils))[
        ..., None, None
    ]
    distance = (row + up) ** 2 + (column - right) ** 2
    maps = np.exp(
        -distance / 2 + 1j * (phase + (slope_up * row + slope_right * column) / 2)
    )
    return maps / np.sqrt((abs(maps) ** 2).sum(0))


def _whole(kspace, lines, shape, centred) -> np.ndarray:
    """Return k-space as centred [coils, H, W], 0 where nothing was measured."""
    kspace, (height, width) = np.asarray(kspace), shape
    rows = kspace.ndim == 3 and kspace.shape[1] == height
    if not (rows and kspace.shape[2] in (width, len(lines))):
        raise ValueError(
            f"calibration has shape {kspace.shape}: must be [coils, {height}, {width}],"
            f" or of the {len(lines)} kept columns; one complex number each"
        )
    if kspace.shape[2] == width:
        full = kspace if centred else np.fft.fftshift(kspace, (1, 2))
    else:
        full = np.zeros((len(kspace), height, width), complex)
        rows = kspace if centred else np.fft.fftshift(kspace, 1)
        full[:, :, (lines + width // 2) % width] = rows
    return full
