"""Between images and the latents in which a prior may live:

    z = s E(2 x - 1),    x = (D(z / s) + 1) / 2,

with E and D the two halves of an autoencoder of images in [-1, 1]. A prior of latents
is a denoiser like others, D(z, sigma), of z in its own range (`low=0`); a detector
encodes, does what it does with z, and decodes. Noise of one standard deviation in z is
none in x: the posterior of a scan is not in the latents' coordinate.

Reference: Rombach et al. 2022, section 3.1 and appendix G (the scale s).
"""

from typing import Any

from jax import Array
from jaxtyping import Float

from klip_jax import struct
from klip_jax.types import Image, Scalar

Latent = Float[Array, "latent_h latent_w latent_c"]


@struct.dataclass
class Autoencoder:
    """Take images in [0, 1] to latents and back.

    Attributes:
      params: the network's parameters.
      net: a flax.linen module with methods "encode" and "decode", of images in [-1, 1].
      scale: s > 0; 1 for VQ-regularised ones.

    Raises:
      ValueError: if the scale is not positive.

    Reference: Rombach et al. 2022, section 3.1.
    """

    params: Any
    net: Any = struct.field(pytree_node=False)
    scale: Scalar = 1.0

    def __post_init__(self):
        if isinstance(self.scale, int | float) and not self.scale > 0:
            raise ValueError(f"scale={self.scale}: must be positive")

    def encode(self, x: Image) -> Latent:
        """Return z of an image in [0, 1], before any table of codes."""
        return self.scale * self.net.apply(self.params, 2 * x - 1, method="encode")

    def decode(self, z: Latent) -> Image:
        """Return the image of z, through the codes where there are some; not clipped.

        It has no gradient in z where there is a table of codes.
        """
        x = self.net.apply(self.params, z / self.scale, method="decode")
        return (x + 1) / 2
