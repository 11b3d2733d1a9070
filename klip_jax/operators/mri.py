"""Cartesian MRI: some lines of k-space, seen by one coil or by several.

    y_c = (Re, Im) of S F (s_c x),   F the orthonormal 2D Fourier transform,
                                     S the kept lines, s_c the sensitivity of coil c

y is real, [..., 2], so noise_std is per real component. For one coil (s = 1) and
complex images A A^T = I. Real images have Hermitian k-space, F x(-k) = conj F x(k): a
line whose mirror image -k is not kept has A A^T = I / 2, and two kept lines k and -k
measure the same numbers twice, each with noise of its own:

    A A^T = P,   (P y)(k) = (y(k) + conj y(-k)) / 2.

F has frequency 0 and the image's origin at index 0, or, `centred` as in files of
scanners, both at index n // 2: shift F unshift. To shift one of the two alone leaves a
phase that is wrong.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Num

from klip_jax.operators.base import Operator
from klip_jax.operators.base_coils import estimated, loaded, simulated
from klip_jax.operators.base_kspace import (
    as_measured,
    kept_lines,
    measured_lines,
)
from klip_jax.types import Image, Scalar


class Cartesian(Operator):
    """Undersampled Cartesian MRI: whole columns of k-space, the rest is not measured.

    The columns |k| <= c // 2 are always kept, c = round(centre * W). The others are, by
    `pattern`,

    - "pairs": drawn from `seed` as pairs (k, -k), uniformly, while round(W /
      acceleration) columns are not exceeded. The draw may so end one column short.
    - "random": drawn from `seed` one by one, uniformly, up to that number.
    - "equispaced": k = d // 2 - W // 2 + j d, rounded, j = 0, 1, ..., with d such that
      about W / acceleration columns are kept; no randomness.

    Args:
      in_shape: (H, W, 1) for real images, (H, W, 2) for complex ones as (Re, Im).
      acceleration: W over the number of kept columns, >= 1.
      centre: fraction of the columns that is always kept, in [0, 1]; at least k = 0.
      seed: of the drawn columns, independent of every other randomness.
      pattern: "pairs", "random" or "equispaced".
      lines: the columns that were measured: indices, a mask [W] or [H, W], or the path
        of an .npy or .npz file of one of these; then nothing is drawn.
      centred: whether frequency 0 and the origin are at index n // 2; `lines` too.

    `__call__` takes [H, W, 1 or 2] and returns [H, kept, 2] in the unit of x; `lines`
    [kept] are the kept columns in FFT order, as y has them.

    Raises:
      ValueError: if a setting is out of range, or the centre alone exceeds the budget.

    Reference: Zbontar et al. 2018 (fastMRI). At W = 240, "equispaced" with acceleration
    8 and centre 0.03 keeps the lines of Song et al. 2022.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        *,
        acceleration: float = 4.0,
        centre: float = 0.08,
        seed: int = 0,
        pattern: str = "pairs",
        lines: Any = None,
        centred: bool = False,
    ):
        height, width, channels = _check_shape(in_shape)
        drawn = acceleration, centre, seed, pattern
        lines = _lines(lines, (height, width), centred, drawn)
        mirror = (lines == -lines[:, None] % width).argmax(1)
        self.centred = bool(centred)
        self.lines, self.mirror = jnp.asarray(lines), jnp.asarray(mirror)
        self.paired = jnp.asarray(lines[mirror] == -lines % width)
        self.in_shape = (height, width, channels)
        self.out_shape = (height, len(lines), 2)

    def __call__(self, x: Image) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        return _measure(_scalar(x), self.lines, self.centred)

    def measured(self, kspace: np.ndarray) -> np.ndarray:
        """Return complex k-space [..., H, kept or W] as y [..., H, kept, 2]."""
        lines = np.asarray(self.lines)
        return as_measured(kspace, lines, self.in_shape[:2], self.centred)

    def solve_gram(
        self, r: Num[Array, "..."], variance: Scalar, noise_var: Scalar
    ) -> Num[Array, "..."]:
        """Solve exactly: A A^T is I, I / 2 or P of the module's docstring.

            u = r / (variance + noise_var)                                 for I
            u = r / (variance / 2 + noise_var)                             for I / 2
            u = P r / (variance + noise_var) + (r - P r) / noise_var       for P

        Args:
          r: right-hand side [H, kept, 2].
          variance: scalar > 0, prior variance of each real pixel, squared image units.
          noise_var: scalar > 0, noise variance of each real component, same unit.

        Returns:
          u [H, kept, 2].
        """
        if self.in_shape[-1] == 2:
            return r / (variance + noise_var)
        # Row -k: frequency 0 is at 0, or at n // 2.
        shift = 1 - r.shape[0] % 2 if self.centred else 1
        mirrored = jnp.roll(r[::-1], shift, axis=0)[:, self.mirror]
        hermitian = (r + mirrored * jnp.array([1, -1], r.dtype)) / 2
        solved = hermitian / (variance + noise_var) + (r - hermitian) / noise_var
        return jnp.where(self.paired[:, None], solved, r / (variance / 2 + noise_var))

    def naive_inverse(self, y: Num[Array, "..."]) -> Image:
        """Return the zero-filled inverse Fourier transform of `y`; [H, W, 1 or 2].

        For real images a missing line is filled with its mirror image where that is
        measured.
        """
        if self.in_shape[-1] == 1:
            y = jnp.where(self.paired[:, None], y, 2 * y)
        return self.adjoint(y)


class MultiCoil(Operator):
    """Undersampled Cartesian MRI with several receiver coils.

    The noise of the coils must be white and alike: whiten measured coils and their
    sensitivities first. Simulated sensitivities are smooth, with sum_c |s_c|^2 = 1.

    Args:
      in_shape: (H, W, 1) for real images, (H, W, 2) for complex ones as (Re, Im).
      sensitivities: complex [coils, H, W], dimensionless, or the path of an .npy or
        .npz file of them; None simulates them.
      coils: number of simulated coils, >= 1.
      acceleration, centre, seed, pattern, lines, centred: the kept columns, as in
        `Cartesian`; `seed` is that of the simulated sensitivities too.
      calibration: complex k-space [coils, H, W], or of the kept columns, `centred` or
        not as y, or the path of such a file: the sensitivities are estimated from it by
        ESPIRiT, with the image's phase where images are real.

    `__call__` takes [H, W, 1 or 2] and returns [coils, H, kept, 2] in the unit of x
    times that of the sensitivities; `lines` [kept] are the kept columns in FFT order.

    Raises:
      ValueError: if a setting is out of range, the centre alone exceeds the budget, or
        `sensitivities` has another shape, is not finite or 0 everywhere.

    Reference: Pruessmann et al. 1999, "SENSE: sensitivity encoding for fast MRI".
    """

    files = "sensitivities", "calibration"  # settings whose files decide numbers

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        sensitivities=None,
        *,
        coils: int = 4,
        acceleration: float = 4.0,
        centre: float = 0.08,
        seed: int = 0,
        pattern: str = "pairs",
        lines: Any = None,
        centred: bool = False,
        calibration: Any = None,
    ):
        height, width, channels = _check_shape(in_shape)
        drawn = acceleration, centre, seed, pattern
        lines = _lines(lines, (height, width), centred, drawn)
        if calibration is not None:
            if sensitivities is not None:
                raise ValueError("give sensitivities or calibration, not both")
            sensitivities = estimated(
                loaded(calibration), lines, (height, width), centred, real=channels == 1
            )
        if sensitivities is None:
            if coils < 1:
                raise ValueError(f"coils={coils}: must be >= 1; 1 is a single coil")
            sensitivities = simulated(height, width, coils, seed)
        maps = np.asarray(loaded(sensitivities), complex)
        if maps.ndim != 3 or maps.shape[1:] != (height, width):
            raise ValueError(
                f"sensitivities have shape {maps.shape}: must be [coils, {height}, "
                f"{width}]; one complex map a coil"
            )
        if not (np.isfinite(maps).all() and maps.any()):
            raise ValueError(
                "the sensitivities are not finite or 0 everywhere: some coil must see "
                "some pixel; set pixels without signal to 0"
            )
        self.sensitivities = jnp.asarray(maps)
        self.lines, self.centred = jnp.asarray(lines), bool(centred)
        self.in_shape = (height, width, channels)
        self.out_shape = (len(maps), height, self.lines.size, 2)

    def __call__(self, x: Image) -> Num[Array, "..."]:
        chex.assert_shape(x, self.in_shape)
        maps = self.sensitivities.astype(jnp.result_type(x.dtype, jnp.complex64))
        return _measure(maps * _scalar(x), self.lines, self.centred)

    def measured(self, kspace: np.ndarray) -> np.ndarray:
        """Return complex k-space [..., H, kept or W] as y [..., H, kept, 2]."""
        lines = np.asarray(self.lines)
        return as_measured(kspace, lines, self.in_shape[:2], self.centred)

    def naive_inverse(self, y: Num[Array, "..."]) -> Image:
        """Combine the zero-filled images of the coils; [H, W, 1 or 2].

            x = sum_c conj(s_c) F^-1 S^T y_c / sum_c |s_c|^2,   0 where no coil sees

        Reference: Roemer et al. 1990, "The NMR phased array", eq. 30.
        """
        power = jnp.sum(jnp.abs(self.sensitivities) ** 2, axis=0)[..., None]
        power = power.astype(y.dtype)
        seen = power > 0
        return jnp.where(seen, self.adjoint(y) / jnp.where(seen, power, 1), 0)


def _check_shape(in_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    height, width, channels = in_shape
    if channels not in (1, 2):
        raise ValueError(
            f"in_shape={in_shape}: channels must be 1 (real) or 2 (Re, Im)"
        )
    return height, width, channels


def _lines(lines, shape, centred, drawn) -> np.ndarray:
    if lines is not None:
        return measured_lines(lines, shape, centred)
    lines = kept_lines(shape[1], *drawn)
    if centred:  # as they come in the file
        lines = np.sort((lines + shape[1] // 2) % shape[1])
        lines = (lines - shape[1] // 2) % shape[1]
    return lines


def _scalar(x: Array) -> Array:
    """Return an image [H, W, 1 or 2] as one real or complex number a pixel, [H, W]."""
    return x[..., 0] if x.shape[-1] == 1 else jax.lax.complex(x[..., 0], x[..., 1])


def _measure(image: Array, lines: Array, centred: bool) -> Array:
    """Return the `lines` of the k-space of `image` [..., H, W] as (Re, Im)."""
    if centred:
        image = jnp.fft.ifftshift(image, (-2, -1))
    k = jnp.fft.fft2(image, norm="ortho")[..., lines]
    if centred:
        k = jnp.fft.fftshift(k, -2)  # the columns are listed as they come
    return jnp.stack([k.real, k.imag], axis=-1)
