"""Coil sensitivities from the calibration region: ESPIRiT.

The blocks of k-space that all coils see span a small space, whose right singular
vectors V (above a share of the largest) are kernels. Their projection V V^H acts on the
coil images pixel by pixel, as G(r) [coils, coils]; the sensitivities at r are its
eigenvector of eigenvalue 1, and where the largest eigenvalue is smaller no coil map
explains the data: there they are 0.

K-space is centred here: index n // 2 is frequency 0, and pixel n // 2 the origin.

Reference: Uecker, Lai, Murphy, Virtue, Elad, Pauly, Vasanawala and Lustig 2014,
"ESPIRiT - an eigenvalue approach to autocalibrating parallel MRI", Magn. Reson. Med.
71(3), eqs. 9 to 15.
"""

import numpy as np
from jaxtyping import Complex


def espirit(
    kspace: Complex[np.ndarray, "coils h w"],
    *,
    calibration: tuple[int, int] = (24, 24),
    kernel: int = 6,
    singular: float = 0.02,
    crop: float = 0.95,
) -> Complex[np.ndarray, "coils h w"]:
    """Estimate the sensitivities of coils from their k-space.

    Args:
      kspace: centred; only its calibration region is looked at.
      calibration: rows and columns around its centre that are fully sampled.
      kernel: side of the blocks, samples, <= both of `calibration`.
      singular: share of the largest singular value that a kernel must have.
      crop: smallest eigenvalue, in [0, 1], of a pixel that a coil sees.

    Returns:
      Maps with sum_c |s_c|^2 = 1, the first coil real, or 0 where nothing is seen.

    Raises:
      ValueError: if the region is smaller than the kernel or larger than k-space, or
        nothing was measured there.
    """
    coils, height, width = kspace.shape
    region = centre(kspace, calibration)
    if min(calibration) < kernel or region.shape[1:] != tuple(calibration):
        raise ValueError(
            f"calibration={calibration}: must be at least kernel={kernel} and at most "
            f"the k-space, {height} x {width}; measure more central lines or lower it"
        )
    if not (np.isfinite(region).all() and region.any()):
        raise ValueError(
            "the calibration region is 0 or not finite: k-space must be centred and "
            "its centre measured; np.fft.fftshift moves frequency 0 there"
        )
    blocks = np.lib.stride_tricks.sliding_window_view(region, (kernel, kernel), (1, 2))
    matrix = blocks.transpose(1, 2, 0, 3, 4).reshape(-1, coils * kernel**2)
    _, s, rows = np.linalg.svd(matrix, full_matrices=False)
    rows = rows[s > singular * s[0]].reshape(-1, coils, kernel, kernel)
    gram = np.zeros((height, width, coils, coils), complex)
    for row in rows:
        image = np.moveaxis(_image(_padded(row, (height, width))), 0, -1)
        # conj: what a kernel explains are its conjugate's images.
        gram += image[..., :, None] * image[..., None, :].conj()
    gram *= height * width / kernel**2
    values, vectors = np.linalg.eigh(gram)
    maps = np.moveaxis(vectors[..., -1], -1, 0)
    maps = maps * np.exp(-1j * np.angle(maps[:1]))
    return np.where(values[..., -1] > crop, maps, 0)


def with_image_phase(
    maps: Complex[np.ndarray, "coils h w"], kspace: Complex[np.ndarray, "coils h w"]
) -> Complex[np.ndarray, "coils h w"]:
    """Return the maps times the phase of the image, so that the image itself is real.

    Args:
      maps: of `espirit`; their phase is that of the first coil.
      kspace: centred, 0 where nothing was measured.
    """
    image = (maps.conj() * _image(kspace)).sum(0)
    return maps * np.exp(1j * np.angle(image))


def centre(kspace: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the central `size` samples of the last two axes."""
    for axis, n in zip((-2, -1), size, strict=True):
        first = max(0, kspace.shape[axis] // 2 - n // 2)
        kspace = kspace.take(range(first, min(first + n, kspace.shape[axis])), axis)
    return kspace


def _padded(kernel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    whole = np.zeros((*kernel.shape[:-2], *size), complex)
    (rows, columns), (height, width) = kernel.shape[-2:], size
    top, left = height // 2 - rows // 2, width // 2 - columns // 2
    whole[..., top : top + rows, left : left + columns] = kernel
    return whole


def _image(kspace: np.ndarray) -> np.ndarray:
    shifted = np.fft.ifftshift(kspace, (-2, -1))
    return np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), (-2, -1))
