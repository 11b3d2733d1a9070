"""Ellipses and their exact sinograms, to measure CT operators against.

An ellipse is (centre, axes, tilt): (right, up) from the image centre and half axes in
pixel lengths, and the angle of the first axis in radians. Its value is 1.
"""

import numpy as np


def draw(size, centre, axes, tilt, samples=8):
    """Return the mean of the ellipse over each pixel [size, size, 1]."""
    right = (np.arange(size * samples) + 0.5) / samples - size / 2
    u, v = np.meshgrid(right - centre[0], -right - centre[1])
    along = u * np.cos(tilt) + v * np.sin(tilt)
    across = v * np.cos(tilt) - u * np.sin(tilt)
    inside = (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1
    pixels = inside.reshape(size, samples, size, samples).mean((1, 3))
    return pixels[..., None].astype(np.float32)


def parallel(op, centre, axes, tilt):
    """Return the exact means over the bins of a `ParallelBeam` [views, detectors]."""
    angle = np.deg2rad(op.angles)[:, None]
    edges = (np.arange(op.out_shape[1] + 1) - op.out_shape[1] / 2) * op.pitch
    half, offset = _profile(angle, centre, axes, tilt)
    t = np.clip((edges - offset) / half, -1, 1)
    area_below = axes[0] * axes[1] * (t * np.sqrt(1 - t**2) + np.arcsin(t))
    return np.diff(area_below, axis=1) / op.pitch


def fan(op, centre, axes, tilt, samples=64):
    """Return the means over the bins of a `FanBeam`, of `samples` rays a bin."""
    views, detectors = op.out_shape
    place = (np.arange(detectors * samples) + 0.5) / samples - detectors / 2
    beam = np.arctan(place * op.pitch / op.magnified)
    angle = np.deg2rad(op.angles)[:, None] - beam
    half, offset = _profile(angle, centre, axes, tilt)
    t = np.clip((op.source * np.sin(beam) - offset) / half, -1, 1)
    chord = 2 * axes[0] * axes[1] / half * np.sqrt(1 - t**2)
    return chord.reshape(views, detectors, samples).mean(-1)


def _profile(angle, centre, axes, tilt):
    """Return half the width of the ellipse's shadow and where its middle lies."""
    half = np.hypot(axes[0] * np.cos(angle - tilt), axes[1] * np.sin(angle - tilt))
    return half, centre[0] * np.cos(angle) + centre[1] * np.sin(angle)
