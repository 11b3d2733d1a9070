"""Coil sensitivities by ESPIRiT, against the truth and against sigpy."""

import numpy as np
import pytest

from klip_jax.operators.base_coils import simulated
from klip_jax.operators.base_espirit import espirit, with_image_phase

N = 32


@pytest.fixture(scope="module")
def scan():
    """Maps [coils, N, N], an image, and its centred k-space with a little noise."""
    maps = simulated(N, N, 4, 0)
    row, column = np.mgrid[:N, :N] - N / 2
    image = 1.0 * ((row / 12) ** 2 + (column / 10) ** 2 < 1)
    image += 0.5 * ((row / 4) ** 2 + ((column - 3) / 4) ** 2 < 1)
    unshifted = np.fft.ifftshift(maps * image, (1, 2))
    kspace = np.fft.fftshift(np.fft.fft2(unshifted, norm="ortho"), (1, 2))
    noise = np.random.default_rng(0).standard_normal((2, *kspace.shape))
    return maps, image, kspace + 1e-3 * (noise[0] + 1j * noise[1])


def relative(estimate, expected, inside):
    gap = np.linalg.norm((estimate - expected)[:, inside])
    return gap / np.linalg.norm(expected[:, inside])


def test_maps_are_those_of_the_coils(scan):
    maps, image, kspace = scan
    estimate = espirit(kspace)
    first = maps * np.exp(-1j * np.angle(maps[:1]))
    assert relative(estimate, first, image > 0) < 0.02
    power = (abs(estimate) ** 2).sum(0)
    np.testing.assert_allclose(power[image > 0], 1, rtol=1e-6)
    # With the image's phase they are the maps themselves: the image is real.
    assert relative(with_image_phase(estimate, kspace), maps, image > 0) < 0.03


@pytest.mark.slow  # half a minute to import numba; the truth above guards the formula
def test_maps_are_those_of_sigpy(scan):
    app = pytest.importorskip("sigpy.mri.app", reason="pip install sigpy")
    _, image, kspace = scan
    theirs = app.EspiritCalib(kspace, calib_width=24, show_pbar=False).run()
    assert relative(espirit(kspace), theirs, image > 0) < 0.02


def test_pixels_that_no_coil_explains_are_0(scan):
    _, _, kspace = scan
    assert not espirit(kspace, crop=1.01).any()


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (1, dict(calibration=(4, 24)), "calibration="),
        (1, dict(calibration=(24, 99)), "calibration="),
        (0, {}, "is 0 or not finite"),
        (np.nan, {}, "is 0 or not finite"),
    ],
)
def test_wrong_calibrations_raise(scan, change, settings, message):
    with pytest.raises(ValueError, match=message):
        espirit(change * scan[2], **settings)
