"""MRI along any path through k-space: radial, spiral, or that of a scanner.

    y_m = (Re, Im) of 1/sqrt(H W) sum_r x(r) exp(-2 pi i k_m . r),

r counted from pixel n // 2, k_m in cycles per pixel, [-1/2, 1/2]; with coils, of s_c x.
At the frequencies of a grid these are the numbers of `mri.Cartesian`, centred.
`base_nufft` computes the sums, within 1e-5 of themselves.
"""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Num

from klip_jax.operators import base_nufft
from klip_jax.operators.base import Operator
from klip_jax.operators.base_coils import loaded
from klip_jax.types import Image

TRAJECTORIES = ("radial", "spiral")


class NonCartesian(Operator):
    """Non-Cartesian MRI with one coil or several.

    Args:
      in_shape: (H, W, 1) for real images, (H, W, 2) for complex ones as (Re, Im).
      trajectory: "radial", lines through the centre at the angles j 180 / arms;
        "spiral", of Archimedes, from the centre outward; or frequencies [..., 2] as
        (row, column), cycles per pixel, or the path of an .npy or .npz file of them.
      arms: number of lines, or of spirals, >= 1.
      readout: samples of each, >= 1; by default max(H, W), of a spiral 4 times as many.
      turns: of each spiral, > 0; by default max(H, W) / 2 / arms.
      sensitivities: complex [coils, H, W], or the path of a file of them; None is one
        coil that sees all alike.

    `__call__` takes [H, W, 1 or 2] and returns [samples, 2], or [coils, samples, 2], in
    the unit of x.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a setting is out of range, or an array of another shape.

    Reference: Fessler 2007, "On NUFFT-based gridding for non-Cartesian MRI".
    """

    files = "trajectory", "sensitivities"  # settings whose files decide numbers

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        trajectory: Any = "radial",
        *,
        arms: int = 16,
        readout: int | None = None,
        turns: float | None = None,
        sensitivities: Any = None,
    ):
        height, width, channels = in_shape
        if channels not in (1, 2):
            raise ValueError(
                f"in_shape={in_shape}: channels must be 1 (real) or 2 (Re, Im)"
            )
        if isinstance(trajectory, str) and trajectory in TRAJECTORIES:
            k = _path(trajectory, max(height, width), arms, readout, turns)
        else:
            k = np.asarray(loaded(trajectory), float)
        if k.ndim < 2 or k.shape[-1] != 2 or not k.size or not (abs(k) <= 0.5).all():
            raise ValueError(
                f"trajectory: must be one of {TRAJECTORIES}, or frequencies [..., 2] "
                f"in [-1/2, 1/2] cycles per pixel; these have shape {k.shape}, divide "
                "cycles per field of view by the number of pixels"
            )
        k = k.reshape(-1, 2)
        self.rows = base_nufft.axis(k[:, 0], height)
        self.columns = base_nufft.axis(k[:, 1], width)
        self.density = jnp.asarray(base_nufft.density(self.rows, self.columns))
        self.in_shape, self.out_shape = tuple(in_shape), (len(k), 2)
        self.sensitivities = None
        if sensitivities is not None:
            maps = np.asarray(loaded(sensitivities), complex)
            if maps.ndim != 3 or maps.shape[1:] != (height, width) or not maps.any():
                raise ValueError(
                    f"sensitivities have shape {maps.shape}: must be [coils, {height}, "
                    f"{width}], and not 0 everywhere"
                )
            self.sensitivities = jnp.asarray(maps)
            self.out_shape = (len(maps), len(k), 2)

    def __call__(self, x: Image) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        image = x[..., 0] if x.shape[-1] == 1 else jax.lax.complex(x[..., 0], x[..., 1])
        if self.sensitivities is not None:
            complex_type = jnp.result_type(x.dtype, jnp.complex64)
            image = self.sensitivities.astype(complex_type) * image
        y = base_nufft.transform(image, self.rows, self.columns)
        y = y / math.sqrt(self.in_shape[0] * self.in_shape[1])
        return jnp.stack([y.real, y.imag], -1)

    def measured(self, kspace: np.ndarray) -> np.ndarray:
        """Return complex samples [..., samples] or [..., arms, readout] as y."""
        coils = () if self.sensitivities is None else self.out_shape[:1]
        kspace = np.asarray(kspace)
        each = coils + self.out_shape[-2:-1]
        if kspace.size % np.prod(each) == 0:
            kspace = kspace.reshape(-1, *each)
        return np.stack([kspace.real, kspace.imag], -1)

    def naive_inverse(self, y: Num[Array, "..."]) -> Image:
        """Return the picture of `y`, its samples weighted by their area."""
        weight = self.density[:, None].astype(y.dtype)
        x = self.adjoint(weight * y)
        ax = self(x)
        power = jnp.sum(weight * ax**2)
        return x * jnp.sum(weight * ax * y) / jnp.maximum(power, 1e-30)


def _path(kind, size, arms, readout, turns) -> Float[np.ndarray, "arms readout 2"]:
    """Return frequencies, (row, column), in cycles per pixel."""
    if readout is None:
        readout = size if kind == "radial" else 4 * size
    turns = size / 2 / max(arms, 1) if turns is None else turns
    if arms < 1 or readout < 1 or not 0 < turns < np.inf:
        raise ValueError(
            f"arms={arms}, readout={readout}, turns={turns}: must be at least 1, and "
            "turns positive; give whole numbers of lines and of samples"
        )
    arm, sample = np.arange(arms)[:, None], np.arange(readout)
    if kind == "radial":
        radius = (sample - readout // 2) / readout
        angle = np.pi * arm / arms + 0 * radius
    else:
        radius = 0.5 * sample / readout
        angle = 2 * np.pi * (turns * sample / readout + arm / arms)
    return np.stack([-radius * np.sin(angle), radius * np.cos(angle)], -1)
