"""The kernel of a shaken camera: its path, shared out among pixels.

    direction(t) = start + theta(t),   theta(t) = bend sqrt(3) int_0^t W

W is a Brownian motion, 0 <= t <= 1, and the speed is constant.
"""

import numpy as np

PATH_POINTS = 4096  # along a motion: 64 for each pixel of a kernel of 64


def motion_kernel(size: int, bend: float, seed: int) -> np.ndarray:
    """Draw the kernel [size, size] of a `MotionBlur`."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 2 * np.pi)
    brownian = np.cumsum(rng.standard_normal(PATH_POINTS)) / PATH_POINTS**0.5
    turn = bend * 3**0.5 * np.cumsum(brownian) / PATH_POINTS
    path = np.cumsum([np.sin(start + turn), np.cos(start + turn)], axis=1)
    low, high = path.min(1, keepdims=True), path.max(1, keepdims=True)
    scale = (size - 1) / (high - low).max()
    path = (size - 1) / 2 + scale * (path - (low + high) / 2)

    kernel = np.zeros((size + 1, size + 1))  # a margin that only zero weights reach
    corner = np.floor(path).astype(int)
    row, column = path - corner
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = abs(1 - down - row) * abs(1 - right - column)
        np.add.at(kernel, (corner[0] + down, corner[1] + right), weight)
    return kernel[:size, :size] / PATH_POINTS
