"""The filter of filtered back-projection, for bins of width 1.

    h[0] = 1/4,   h[j odd] = -1/(pi j)^2,   h[j even] = 0

Reference: Kak and Slaney 1988, chapter 3, eq. 61.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float


def ramp(y: Float[Array, "views detectors"]) -> Float[Array, "views detectors"]:
    """Convolve the rows of `y` [views, detectors] with the Ram-Lak filter."""
    n = 2 * y.shape[1]  # zero padding: the convolution must not wrap around
    offset = np.fft.fftfreq(n, 1 / n)
    odd = offset % 2 == 1
    h = np.where(odd, -1 / (np.pi * np.where(odd, offset, 1)) ** 2, 0.0)
    h[0] = 1 / 4
    gain = jnp.asarray(np.fft.rfft(h).real, y.dtype)
    return jnp.fft.irfft(gain * jnp.fft.rfft(y, n), n)[:, : y.shape[1]]
