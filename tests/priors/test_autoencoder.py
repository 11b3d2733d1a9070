"""Images to latents and back: ranges and scale."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from klip_jax.priors.autoencoder import Autoencoder


class Halves(nn.Module):
    """Means of 2x2 pixels in [-1, 1], times five."""

    def __call__(self, x):
        return self.decode(self.encode(x))

    def encode(self, x):
        """Return [h / 2, w / 2, c]."""
        h, w, c = x.shape
        return 5 * x.reshape(h // 2, 2, w // 2, 2, c).mean((1, 3))

    def decode(self, z):
        """Return [2 h, 2 w, c]."""
        return jnp.repeat(jnp.repeat(z / 5, 2, 0), 2, 1)


def test_there_and_back():
    image = jnp.repeat(jnp.repeat(jnp.linspace(0, 1, 6).reshape(2, 3, 1), 2, 0), 2, 1)
    autoencoder = Autoencoder({}, Halves(), 0.5)
    z = autoencoder.encode(image)
    np.testing.assert_allclose(z[..., 0], 2.5 * (2 * image[::2, ::2, 0] - 1), atol=1e-6)
    np.testing.assert_allclose(autoencoder.decode(z), image, atol=1e-6)


def test_a_scale_that_cannot_be():
    with pytest.raises(ValueError, match="scale=0: must be positive"):
        Autoencoder({}, Halves(), 0)
